"""One diffeomorphism of spacetime after another."""

from __future__ import annotations

from torch import Tensor, nn

from gaugefix.errors import DiffeomorphismError
from gaugefix.ode.field import Diffeomorphism


class Composition(nn.Module):
    """ψ_k ∘ … ∘ ψ₁: the first argument acts first. Those that fix the ends are a group under this.

    Its inverse is known where all inverses are (``diffeo.inverse``).

    Args:
        diffeos: ψ(t, x) → (τ, ξ), each for one point.

    Raises:
        DiffeomorphismError: no argument.

    Example:
        >>> import torch
        >>> twice = Composition(lambda t, x: (t, x + t), lambda t, x: (t, 2 * x))
        >>> twice(torch.tensor(1.0), torch.tensor([3.0]))
        (tensor(1.), tensor([8.]))
    """

    def __init__(self, *diffeos: Diffeomorphism) -> None:
        super().__init__()
        if not diffeos:
            raise DiffeomorphismError("Expected at least one diffeomorphism for diffeos, got none. Pass one.")
        self.diffeos = diffeos
        for i, diffeo in enumerate(diffeos):
            if isinstance(diffeo, nn.Module):
                self.add_module(str(i), diffeo)
        inverses = [getattr(diffeo, "inverse", None) for diffeo in diffeos]
        known = [inverse for inverse in inverses if inverse is not None]
        self.inverse = Composition._chain(known[::-1]) if len(known) == len(diffeos) else None

    @staticmethod
    def _chain(steps: list[Diffeomorphism]) -> Diffeomorphism:
        def chained(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            for step in steps:
                t, x = step(t, x)
            return t, x

        return chained

    def forward(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (τ, ξ), shapes () and (n,), for t of shape () and x of shape (n,)."""
        for diffeo in self.diffeos:
            t, x = diffeo(t, x)
        return t, x
