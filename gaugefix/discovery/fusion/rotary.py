"""Rotary positions: a region that turns pairs of channels by angles that depend on the position.

Recognised by what it does, so that every layout counts: halves, interleaved pairs, a part of the channels, complex
numbers. The coefficients are computed, and every pair must be a rotation times a factor at every position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from gaugefix.discovery.fusion.constants import Constants, run_node
from gaugefix.discovery.fusion.regions import Region


@dataclass(frozen=True)
class Rotary:
    """What a rotary region does to the channels of the last axis.

    Args:
        planes: pairs of channels that turn together.
        passed: channels that come out as they are.
        scaled: channels that are multiplied by a constant.
        axes: the other axes along which the angles vary, counted from the end (−2: positions).
    """

    planes: tuple[tuple[int, int], ...]
    passed: tuple[int, ...]
    scaled: tuple[int, ...]
    axes: tuple[int, ...]


def read_rotary(region: Region, constants: Constants, known: dict[Any, Rotary | None]) -> Rotary | None:
    """Return what ``region`` does, or ``None`` if it is anything but a rotation of planes of the last axis.

    Args:
        region: a linear region with constant coefficients.
        constants: the constant values of its graph.
        known: results by what is computed; layers that compute the same are looked at once.
    """
    key = _signature(region, constants)
    if key not in known:
        try:
            known[key] = _read(region, constants)
        except (RuntimeError, NotImplementedError, TypeError, KeyError):
            known[key] = None
    return known[key]


def _read(region: Region, constants: Constants) -> Rotary | None:
    shape = tuple(region.root.meta["val"].shape)
    values = {s: constants.value(s) for node in region.nodes for s in node.all_input_nodes if s in constants.fixed}
    matrix = _matrix(region, values, shape)
    probe = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.einsum("i...j,...i->...j", matrix, probe)
    if not torch.allclose(_replay(region, values, probe).double(), expected, rtol=1e-4, atol=1e-4):
        return None  # other axes take part
    # Which channels meet, whatever the coefficients are: an angle may be 0 by chance.
    generator = torch.Generator().manual_seed(2)
    generic = _matrix(region, {node: _scrambled(value, generator) for node, value in values.items()}, shape)
    meets = generic.flatten(1, -2).abs().sum(1) > 0 if generic.ndim > 2 else generic.abs() > 0
    planes: list[tuple[int, int]] = []
    passed: list[int] = []
    scaled: list[int] = []
    for i in range(shape[-1]):
        partners = sorted(set(torch.nonzero(meets[i] | meets[:, i]).flatten().tolist()) | {i})
        if len(partners) == 1:
            (passed if bool((generic[i, ..., i] == 1).all()) else scaled).append(i)
        elif len(partners) == 2:
            if i == partners[0]:
                planes.append((partners[0], partners[1]))
        else:
            return None
    if not planes or not all(_turns(matrix, i, j) for i, j in planes):
        return None
    axes = tuple(k for k in range(-len(shape), -1) if bool((matrix != matrix.narrow(k, 0, 1)).any()))
    return Rotary(tuple(planes), tuple(passed), tuple(scaled), axes)


def _turns(matrix: Tensor, i: int, j: int) -> bool:
    """Whether the 2×2 blocks on channels i and j are rotations times factors, and some of them do turn."""
    same = bool((matrix[i, ..., i] == matrix[j, ..., j]).all())
    opposite = bool((matrix[i, ..., j] == -matrix[j, ..., i]).all())
    return same and opposite and bool((matrix[i, ..., j] != 0).any())


def _matrix(region: Region, values: dict[fx.Node, Any], shape: tuple[int, ...]) -> Tensor:
    """(channels in, *other axes, channels out) coefficients."""
    n = shape[-1]
    basis = torch.eye(n, dtype=torch.float64).reshape(n, *[1] * (len(shape) - 1), n).expand(n, *shape)
    result: Tensor = torch.func.vmap(lambda x: _replay(region, values, x))(basis)
    return result.double()


def _replay(region: Region, values: dict[fx.Node, Any], x: Tensor) -> Tensor:
    env = {**values, region.root: x}
    for node in region.nodes:
        env[node] = run_node(node, env)
    result: Tensor = env[region.end]
    return result


def _scrambled(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
        return torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return value


def _signature(region: Region, constants: Constants) -> tuple[Any, ...]:
    names: dict[fx.Node, Any] = {region.root: "root"}
    for k, node in enumerate(region.nodes):
        given = (source for source in node.all_input_nodes if source in constants.fixed)
        names.update((source, f"constant {constants.alike[source]}") for source in given)
        names[node] = k
    shape = tuple(region.root.meta["val"].shape)
    lines = []
    for node in region.nodes:
        args = fx.node.map_arg((node.args, dict(node.kwargs)), lambda source: f"%{names[source]}")
        lines.append(f"{node.target}{args}")
    return (id(constants.capture), shape, *lines)
