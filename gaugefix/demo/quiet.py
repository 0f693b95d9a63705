"""Keep what dependencies print about themselves away from the person who started a run."""

from __future__ import annotations

import logging
import warnings

HINTS = (
    r".*does not have many workers",  # the data are in memory
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's model summary, on torch >= 2.8
    r"(?s).*was deprecated in v4\.",  # LightningCLI calls older names of jsonargparse
    r"(?s).*JsonargparseDeprecationWarning",
    r".*GPU available but not used",
    r".*litlogger|.*tensorboardX",
    r".*The dirpath has changed",  # a resumed run has its own directory
    # A checkpoint can be validated without them.
    r".*callbacks used to create the checkpoint.* callbacks: \[.ModelCheckpoint\{[^\[\]{}]*\}.\]",
    r".*Checkpoint directory .* exists and is not empty",
    r".*LightningCLI's args parameter",
)


def quiet() -> None:
    """Silence adverts, hints about the machine and notices of deprecation; errors and other warnings stay."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in HINTS:
        warnings.filterwarnings("ignore", message=message)
