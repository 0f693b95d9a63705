"""A linear network as a lattice gauge field: one affine link from each time to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gaugefix.errors import FieldError


@dataclass(frozen=True)
class Lattice:
    """Layers x_{l+1} = U_l x_l + β_l, as links [[U_l, β_l], [0, 1]] over the intervals of a time lattice.

    A link is the *integral* of a linear field over its interval (:func:`integrate`), not its value at some point. A
    lattice gauge is a frame G_l at every time, and

        link_l → G_{l+1} link_l G_l⁻¹,      that is  U_l → g_{l+1} U_l g_l⁻¹  and, for c = 0,  β_l → g_{l+1} β_l.

    Args:
        links: shape (layers, n + 1, n + 1), last rows (0, …, 0, 1).
        times: t_0 < … < t_L, shape (layers + 1,).

    Raises:
        FieldError: shapes, last rows or times that are not so.

    Example:
        >>> Lattice.of_layers(torch.stack([2 * torch.eye(1)] * 3), torch.ones(3, 1)).holonomy()
        tensor([[8., 7.],
                [0., 1.]])
    """

    links: Tensor
    times: Tensor

    def __post_init__(self) -> None:
        _check_affine("links", self.links, len(self.times) - 1)
        if self.times.ndim != 1 or not bool((self.times.diff() > 0).all()):
            raise FieldError(f"Expected rising times for times, got {self.times.tolist()}. Sort them.")

    @classmethod
    def of_layers(cls, weights: Tensor, biases: Tensor | None = None, times: Tensor | None = None) -> Lattice:
        """Read a stack of linear layers as a lattice.

        Args:
            weights: U, shape (layers, n, n).
            biases: β, shape (layers, n); zero by default.
            times: shape (layers + 1,); equidistant from 0 to 1 by default.
        """
        if weights.ndim != 3 or (biases is not None and biases.shape != weights.shape[:2]):
            raise FieldError(
                "Expected shapes (layers, n, n) and (layers, n) for weights and biases, got "
                f"{tuple(weights.shape)} and {None if biases is None else tuple(biases.shape)}."
            )
        links = torch.eye(weights.shape[-1] + 1).to(weights).repeat(len(weights), 1, 1)
        links[:, :-1, :-1] = weights
        if biases is not None:
            links[:, :-1, -1] = biases
        return cls(links, torch.linspace(0, 1, len(weights) + 1).to(weights) if times is None else times)

    @property
    def weights(self) -> Tensor:
        """U, shape (layers, n, n)."""
        return self.links[:, :-1, :-1]

    @property
    def biases(self) -> Tensor:
        """β, shape (layers, n)."""
        return self.links[:, :-1, -1]

    def transform(self, frames: Tensor) -> Lattice:
        """Return the lattice in other frames.

        Args:
            frames: G, shape (layers + 1, n + 1, n + 1), last rows (0, …, 0, 1).

        Raises:
            FieldError: shapes or last rows that are not so.
        """
        _check_affine("frames", frames, len(self.links) + 1)
        moved = torch.linalg.solve(frames[:-1], frames[1:] @ self.links, left=False)
        last = torch.zeros_like(moved[:, :1])
        last[..., -1] = 1
        return Lattice(torch.cat([moved[:, :-1], last], 1), self.times)

    def holonomy(self) -> Tensor:
        """Return [[U(T), a], [0, 1]], the product of all links: x(T) = U(T) x(0) + a. Shape (n + 1, n + 1)."""
        return ordered_product(self.links)

    def action(self) -> Tensor:
        """Return Σ (‖U_l − 1‖² + |β_l|²)/h_l, shape (): the lattice form of ∫ ‖W‖² + |b|² dt."""
        return (
            (self.links - torch.eye(self.links.shape[-1]).to(self.links)).square().sum((1, 2)) / self.times.diff()
        ).sum()


def ordered_product(links: Tensor) -> Tensor:
    """Return link_{L-1} ⋯ link_0 of a stack (layers, m, m), pair by pair. Shape (m, m)."""
    while len(links) > 1:
        odd = links[-1:] if len(links) % 2 else links[:0]
        links = torch.cat([links[1::2] @ links[: len(links) - len(odd) : 2], odd])
    return links[0]


def _check_affine(name: str, matrices: Tensor, count: int) -> None:
    if matrices.ndim != 3 or len(matrices) != count or count < 1 or matrices.shape[1] != matrices.shape[2]:
        raise FieldError(
            f"Expected shape ({count}, n + 1, n + 1) for {name}, got {tuple(matrices.shape)}. Give one affine matrix "
            f"per {'layer' if name == 'links' else 'time'}."
        )
    last = matrices[:, -1].detach()
    if not bool((last[:, -1] == 1).all()) or bool((last[:, :-1] != 0).any()):
        raise FieldError(f"Expected last rows (0, …, 0, 1) for {name}, got {last[0].tolist()} among them.")
