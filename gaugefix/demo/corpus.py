"""Python's own reference, ``pydoc_data.topics``, as a corpus of characters that every installation has."""

from __future__ import annotations

import hashlib
import platform
import string
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from gaugefix.demo.in_memory import InMemoryData, check_count

LETTERS = "\n" + string.digits + string.ascii_letters + string.punctuation + " "
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""Stands for every character that is not in :data:`LETTERS`."""
VOCABULARY = len(LETTERS) + 1
_NUMBER = {letter: k for k, letter in enumerate(LETTERS)}


def encode(text: str) -> Tensor:
    """Return the number of every character, (n,) int64."""
    return torch.tensor([_NUMBER.get(letter, len(LETTERS)) for letter in text], dtype=torch.long)


def decode(tokens: Tensor) -> str:
    """Return the text of (n,) numbers."""
    return "".join((LETTERS + UNKNOWN)[k] for k in tokens.tolist())


class CorpusData(InMemoryData):
    """Windows of ``context`` characters, and the characters that follow each of them.

    The text is every topic in the order of its name. Its end is for validation, the rest for training; windows do not
    overlap. The text differs between versions of Python, so that losses of two versions do not compare: :attr:`facts`
    holds its hash. The order of the training batches depends on the seed of the run (``seed_everything``) only, and
    not on what else draws random numbers during training.

    Args:
        batch_size: windows per training batch; an incomplete last batch is left out.
        context: characters per window.
        val_fraction: part of the text, at its end, that is kept for validation.
        val_batch_size: windows per validation batch.

    Attributes:
        facts: what belongs into the summary of a run: name, length and sha256 of the text, and Python's version.
    """

    usual_batch_size, usual_val_fraction = 16, 0.05

    def __init__(
        self, batch_size: int = 16, context: int = 64, val_fraction: float = 0.05, val_batch_size: int = 64
    ) -> None:
        super().__init__(batch_size, val_fraction, val_batch_size)
        check_count("context", context, 64)
        check_count("val_batch_size", val_batch_size, 64)
        self.context = context
        self.facts: dict[str, Any] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read the text and cut it into windows."""
        if self.train_data is not None:
            return
        from pydoc_data.topics import topics

        text = "".join(topics[name] for name in sorted(topics))
        self.facts = {
            "corpus": "pydoc_data.topics",
            "corpus_characters": len(text),
            "corpus_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "python": platform.python_version(),
        }
        tokens = encode(text)
        cut = len(tokens) - round(self.val_fraction * len(tokens))
        self.train_data = self._windows(tokens[:cut])
        self.val_data = self._windows(tokens[cut:])

    def _windows(self, tokens: Tensor) -> TensorDataset:
        count = (len(tokens) - 1) // self.context
        if count < 1:
            raise ValueError(
                f"Expected a context shorter than each part of the corpus for context, got {self.context} for a part "
                f"of {len(tokens)} characters. Give a smaller context or a larger part."
            )
        used = count * self.context
        inputs, targets = tokens[:used], tokens[1 : used + 1]
        return TensorDataset(inputs.view(count, -1), targets.view(count, -1))
