"""One line of progress for each run of a demo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ProgressLine(Callback):
    """Moves one task of a rich progress display, with the newest validation accuracy beside it.

    Args:
        progress: the display, which is running.
        task: the task of this run.
        every: steps between two updates.
    """

    def __init__(self, progress: Progress, task: TaskID, every: int = 10) -> None:
        self.progress = progress
        self.task = task
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every == 0:
            self.progress.update(self.task, completed=trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = trainer.callback_metrics.get("val/acc")
        if accuracy is not None:
            self.progress.update(self.task, note=f"val accuracy {float(accuracy):.3f}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.progress.update(self.task, completed=trainer.global_step)
