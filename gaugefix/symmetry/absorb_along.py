"""The constant that a layer norm leaves, in place of a bias that its reader lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gaugefix.errors import SymmetryError
from gaugefix.symmetry.shift_steps import ChannelMap, Form


@dataclass(frozen=True, eq=False)
class AbsorbAlong:
    """W += (t[target] − W · source(t)) kᵀ/(κ + k · source(t)) for an input with k·x = κ, k = 1/γ, κ = Σβ/γ.

    A map without a bias that reads a layer norm has one all the same, as long as κ is not zero.
    Near zero it amplifies rounding errors (:meth:`strain`).
    """

    map: ChannelMap
    source: Form
    target: Form | None
    gain: str | None
    shift: str

    @property
    def parameter(self) -> str:
        """The weight."""
        return self.map.weight

    def delta(self, tensors: Mapping[str, Tensor], t: Tensor) -> Tensor:
        """Return the change of the weight."""
        k, _, shift, moved = self._constant(tensors, t)
        out = -self.map.apply(tensors, moved) if self.source.terms else t.new_zeros(())
        out = out if self.target is None else out + self.target.value(t)
        columns = k / (k @ (shift + moved))
        return columns[:, None] * out if self.map.transposed else out[:, None] * columns

    def strain(self, tensors: Mapping[str, Tensor], t: Tensor) -> float:
        """Return ‖k‖‖x‖/|k·x| for the shifted input x: by how much rounding errors of its output grow.

        ‖x‖² is Σ(γ² + β²), the mean over inputs. Infinite where κ is zero, before or after the shift, or a gain is.
        """
        k, gain, shift, moved = self._constant(tensors, t)
        before, after = k @ shift, k @ (shift + moved)
        size = k.norm() * (gain.square() + (shift + moved).square()).sum().sqrt()
        factor = torch.where(before == 0, torch.inf, size / after.abs())
        return float(factor.nan_to_num(nan=torch.inf, posinf=torch.inf).detach())

    def _constant(self, tensors: Mapping[str, Tensor], t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """k, γ, β and how far β moves."""
        shift = tensors[self.shift].reshape(-1)
        gain = torch.ones_like(shift) if self.gain is None else tensors[self.gain].reshape(-1)
        moved = self.source.value(t) if self.source.terms else torch.zeros_like(shift)
        return gain.reciprocal(), gain, shift, moved

    def check(self, tensors: Mapping[str, Tensor], t: Tensor, dtype: torch.dtype) -> None:
        """Refuse a shift where there is no constant, or one so small that a weight of ``dtype`` lost half its digits.

        Raises:
            SymmetryError: if κ is zero or near it, before or after the shift, or if a gain is zero.
        """
        strain, most = self.strain(tensors, t), torch.finfo(dtype).eps ** -0.5
        if strain <= most:
            return
        zeros = 0 if self.gain is None else int((tensors[self.gain].detach() == 0).sum())
        if zeros:
            problem = f"Expected gains other than 0 in '{self.gain}', got {zeros} zeros"
        else:
            near = f"one so near 0 that rounding errors grow by {strain:.1e} ({dtype} bears {most:.0e})"
            got = near if strain < torch.inf else "0"
            problem = f"Expected Σβ/γ away from 0 for the norm of '{self.shift}', got {got}"
        raise SymmetryError(
            f"{problem}. There '{self.parameter}' has no constant that could stand in for its missing bias: leave the "
            "shift out (gauge.random does so by default; else gauge.select) or take a smaller one."
        )
