"""Integrate a linear field over intervals: layers from a continuum, and the holonomy that all gauges share."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.func import vmap

from gaugefix.errors import FieldError
from gaugefix.ode.lattice import Lattice, ordered_product
from gaugefix.ode.linear_field import LinearField

_NODES = 0.5 + math.sqrt(15) / 10 * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
"""Gauss–Legendre points of [0, 1]."""


def integrate(field: LinearField, times: Tensor, substeps: int = 8) -> Lattice:
    """Return the layers of a linear field: the path-ordered exponential over each interval.

    With A = [[W, b], [0, 0]] the link is P exp ∫ A dt = [[U, β], [0, 1]], where U = P exp ∫ W dt and
    β = ∫ U(t_{l+1}, s) b(s) ds. It is computed by the Magnus expansion of sixth order (Blanes, Casas, Oteo, Ros,
    arXiv 0810.5488), one matrix exponential per substep, exact for an A that does not change.

    Args:
        field: A(t); asked at all nodes at once through ``torch.func.vmap``.
        times: t_0 < … < t_L, shape (layers + 1,); their dtype is that of the work.
        substeps: parts that each interval is cut into; the error falls with their sixth power.

    Returns:
        The lattice, links of shape (layers, n + 1, n + 1).

    Raises:
        FieldError: times that do not rise, or no substep.

    Example:
        >>> lattice = integrate(LinearField(lambda t: t * torch.eye(1).double()), torch.tensor([0.0, 1.0]).double())
        >>> bool((lattice.weights.log() - 0.5).abs() < 1e-14)
        True
    """
    if substeps < 1 or times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise FieldError(
            f"Expected at least two rising times for times and one step for substeps, got {times.tolist()} and "
            f"{substeps}."
        )
    h = (times.diff() / substeps).repeat_interleave(substeps)
    starts = times[:-1].repeat_interleave(substeps) + h * torch.arange(len(h), device=h.device).remainder(substeps)
    nodes = starts[:, None] + h[:, None] * _NODES.to(times)
    a = vmap(field.connection)(nodes.flatten())
    steps = torch.linalg.matrix_exp(_magnus(a.reshape(*nodes.shape, *a.shape[1:]), h))
    links = vmap(ordered_product)(steps.reshape(len(times) - 1, substeps, *a.shape[1:]))
    links = torch.cat([links[:, :-1], torch.eye(links.shape[-1]).to(links)[-1:].expand(len(links), 1, -1)], 1)
    return Lattice(links, times)


def holonomy(field: LinearField, start: float = 0.0, end: float = 1.0, steps: int = 64) -> Tensor:
    """Return the parallel transport from end to end, [[U(T), a], [0, 1]]: x(T) = U(T) x(0) + a.

    These n² + n numbers are all that is invariant under gauges that are trivial at both ends; if the ends move too, by
    G(0) and G(T), it becomes G(T) · holonomy · G(0)⁻¹.

    Args:
        field: the linear field.
        start: t₀.
        end: T.
        steps: of the Magnus integrator (sixth order).

    Returns:
        Shape (n + 1, n + 1), float64.
    """
    times = torch.tensor([start, end], dtype=torch.float64)
    return integrate(field, times, steps).holonomy()


def _magnus(a: Tensor, h: Tensor) -> Tensor:
    """Ω of sixth order from A at the three nodes of each step, a (steps, 3, m, m) and h (steps,)."""
    early, middle, late = a.unbind(1)
    h = h[:, None, None]
    value = h * middle
    slope = math.sqrt(15) / 3 * h * (late - early)
    curve = 10 / 3 * h * (late - 2 * middle + early)
    first = _commutator(value, slope)
    second = -_commutator(value, 2 * curve + first) / 60
    return value + curve / 12 + _commutator(-20 * value - curve + first, slope + second) / 240


def _commutator(a: Tensor, b: Tensor) -> Tensor:
    return a @ b - b @ a
