"""The training of a small causal character model, whatever its network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from gaugefix.demo.corpus import VOCABULARY, decode, encode
from gaugefix.demo.hf_decoder import HFDecoder
from gaugefix.demo.layernorm_decoder import LayerNormDecoder
from gaugefix.demo.rotary_decoder import RotaryDecoder
from gaugefix.errors import GaugeError, did_you_mean

Architecture = Literal["rope", "layernorm", "hf-llama", "hf-gpt2"]


class ArchitectureError(GaugeError, ValueError):
    """There is no such architecture."""


class LanguageModel(LightningModule):
    """Cross entropy of the next character in nats; logs ``train/loss``, ``val/loss`` and ``lr``.

    AdamW; the learning rate rises linearly over the warm-up and falls along half a cosine to a tenth.

    Args:
        architecture: rope (like Llama), layernorm (like GPT-2), or hf-llama and hf-gpt2 of the package transformers.
        width: channels of the residual stream.
        layers: blocks.
        heads: query heads.
        kv_heads: key and value heads; None for as many as query heads. hf-gpt2 takes no other number.
        context: the most characters that a prediction sees.
        lr: learning rate at its highest.
        warmup_steps: optimizer steps of the warm-up.
        weight_decay: of AdamW, for matrices only; gains and biases are left alone.
    """

    example_input_array: Tensor
    monitor: ClassVar[str] = "val/loss"
    monitor_mode: ClassVar[str] = "min"

    def __init__(
        self,
        architecture: Architecture = "rope",
        width: int = 96,
        layers: int = 3,
        heads: int = 4,
        kv_heads: int | None = None,
        context: int = 64,
        lr: float = 3e-3,
        warmup_steps: int = 50,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        if kv_heads is None:
            kv_heads = heads
        self.method_prefix = "" if architecture == "rope" else f"{architecture}_"
        self.net = decoder(architecture, width, layers, heads, kv_heads, context)
        self.example_input_array = torch.arange(2 * context).reshape(2, context) % VOCABULARY
        self.context = context
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
        self.save_hyperparameters()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, positions, vocabulary) for characters (batch, positions)."""
        logits: Tensor = self.net(tokens)
        return logits

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean over all positions; in float32, whatever the parameters are in."""
        tokens, targets = batch
        return cross_entropy(self(tokens).flatten(0, 1).float(), targets.flatten())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch), batch_size=len(batch[0]), prog_bar=True)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = AdamW([group for group in groups if group["params"]], lr=self.lr, betas=(0.9, 0.95))
        total = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, warmup_cosine(self.warmup_steps, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def sample(self, prompt: str, length: int, temperature: float = 0.8, seed: int = 0) -> str:
        """Return ``prompt`` and ``length`` characters drawn one after another.

        Args:
            prompt: at least one character.
            length: how many characters to draw.
            temperature: below 1 prefers likely characters.
            seed: of the draws.
        """
        generator = torch.Generator().manual_seed(seed)
        tokens = encode(prompt)
        was_training = self.training
        self.eval()
        for _ in range(length):
            logits = self(tokens[-self.context :][None].to(self.device))[0, -1].float().cpu()
            drawn = torch.multinomial((logits / temperature).softmax(0), 1, generator=generator)
            tokens = torch.cat([tokens, drawn])
        self.train(was_training)
        return decode(tokens)


def decoder(architecture: str, width: int, layers: int, heads: int, kv_heads: int, context: int) -> nn.Module:
    """Return a network: characters (batch, positions) → logits (batch, positions, vocabulary).

    Raises:
        ArchitectureError: for an unknown name, or one that cannot share key and value heads.
        MissingExtraError: if the architecture is one of transformers, which is not installed.
    """
    if architecture == "rope":
        return RotaryDecoder(width, layers, heads, kv_heads, context)
    if architecture == "layernorm":
        return LayerNormDecoder(width, layers, heads, kv_heads, context)
    if architecture == "hf-llama":
        return HFDecoder("llama", width, layers, heads, kv_heads, context)
    if architecture == "hf-gpt2":
        if kv_heads != heads:
            raise ArchitectureError(
                f"Expected as many kv_heads as heads ({heads}) for hf-gpt2, got {kv_heads}. Give null, or another "
                "architecture."
            )
        return HFDecoder("gpt2", width, layers, heads, heads, context)
    raise ArchitectureError(
        f"Expected an architecture for architecture, got '{architecture}'. "
        f"{did_you_mean(architecture, get_args(Architecture))}"
    )


def warmup_cosine(warmup: int, total: int, least: float = 0.1) -> Callable[[int], float]:
    """Return step → factor of the learning rate: (step + 1)/warmup at first, then half a cosine from 1 to ``least``.

    Args:
        warmup: steps of the linear part.
        total: steps of the whole training.
        least: the factor at the end.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return least + (1 - least) * (1 + math.cos(math.pi * done)) / 2

    return factor
