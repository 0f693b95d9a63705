"""The law by which weight decay contracts Noether charges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gaugefix.symmetry import GaugeGroup, LinearSymmetry, Symmetry, WriterKernel

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ChargeDecay:
    """By which factors weight decay contracts the charges, and why there is no such factor for some of them.

    Args:
        factors: symmetry name → e^(−k·wd·t), k = 2 for quadratic charges and 1 for linear ones.
        lawless: symmetry name → the reason why its charge obeys no such law.
    """

    factors: Mapping[str, float]
    lawless: Mapping[str, str]


def charge_decay(
    model: nn.Module, gauge: GaugeGroup, exponents: Mapping[int, float], names: Mapping[str, object]
) -> ChargeDecay:
    """Return e^(−2·wd·t) for every charge in ``names``.

    In gradient flow with weight decay, θ̇ = −∇L − wd·θ, the slope of a quadratic charge q along −∇L is zero, since q is
    the slope of ½‖θ‖² along the orbit and L does not change there. What is left is q̇ = −2·wd·q, if one wd holds for
    all legs (Kunin et al., *Neural Mechanics*, arXiv 2012.04728). The charge of a writer kernel is linear in
    the weight: q̇ = −wd·q.

    Args:
        model: the model.
        gauge: its group.
        exponents: wd·t by the id of every parameter that is trained by gradient descent.
        names: symmetries that have a charge.
    """
    tensors = gauge.check(model)
    ids = {name: id(tensor) for name, tensor in tensors.items()}
    factors: dict[str, float] = {}
    lawless: dict[str, str] = {}
    for name in names:
        moved, reason = _moved(gauge[name])
        missing = [parameter for parameter in moved if ids[parameter] not in exponents]
        sums = {exponents[ids[parameter]] for parameter in moved if ids[parameter] in exponents}
        if reason:
            lawless[name] = reason
        elif missing:
            lawless[name] = f"'{missing[0]}' is not trained by torch's SGD, and charges are conserved by no other rule"
        elif sums and max(sums) - min(sums) > 1e-9 * max(sums):
            lawless[name] = "its legs have different weight decays or learning rates"
        else:
            power = 1 if isinstance(gauge[name], WriterKernel) else 2
            factors[name] = math.exp(-power * max(sums, default=0.0))
    return ChargeDecay(factors, lawless)


def _moved(symmetry: Symmetry) -> tuple[list[str], str]:
    """The parameters in the charge, or why weight decay does not contract it."""
    if isinstance(symmetry, WriterKernel):
        return [symmetry.weight], ""
    if not isinstance(symmetry, LinearSymmetry):
        return [], "it has no conserved charge"
    trained = [leg for leg in symmetry.legs if not leg.buffer]
    shifted = next((leg for leg in trained if leg.offset), None)
    if shifted is not None:
        return [], f"'{shifted.parameter}' enters as {shifted.offset:g} + the parameter, which decay does not scale"
    return [leg.parameter for leg in trained], ""
