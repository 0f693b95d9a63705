"""loss_scale: what a gradient scaler has left in the gradients."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from gaugefix.callbacks.lightning_callback import Trainer


def loss_scale(trainer: Trainer, optimizer: Optimizer) -> Tensor | float:
    """Return the factor that gradients still carry before a step.

    It is 1, but for fused optimizers, which take the scale of a gradient scaler out themselves.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return 1.0
    on_device = getattr(scaler, "_scale", None)  # private, but get_scale() waits for the device
    return on_device if isinstance(on_device, Tensor) else float(scaler.get_scale())
