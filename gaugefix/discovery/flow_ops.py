"""Operations that stand for a solver in a captured graph; their rules are in ``rules/flow.py``.

They are marked as random, so that nobody folds what is only known at one point of a trajectory into a constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_LIBRARY: Any = torch.library.Library("gaugefix", "DEF")  # type: ignore[no-untyped-call]
for _schema in ("state(Tensor x) -> Tensor", "velocity(Tensor v) -> Tensor", "moment(Tensor times) -> Tensor"):
    _LIBRARY.define(_schema, tags=(torch.Tag.nondeterministic_seeded,))
_LIBRARY.impl("state", lambda x: x.clone(), "CompositeExplicitAutograd")
_LIBRARY.impl("velocity", lambda v: v.clone(), "CompositeExplicitAutograd")
_LIBRARY.impl("moment", lambda times: times[0].clone(), "CompositeExplicitAutograd")


def state(x: Tensor) -> Tensor:
    """Return a state that the trajectory from ``x`` passes: it transforms as ``x`` does, and that is all it has."""
    result: Tensor = _packet().state(x)
    return result


def velocity(v: Tensor) -> Tensor:
    """Return a velocity, which transforms as the state does but does not shift with it."""
    result: Tensor = _packet().velocity(v)
    return result


def moment(times: Tensor) -> Tensor:
    """Return some time during the solve, a number that nobody knows."""
    result: Tensor = _packet().moment(times)
    return result


def _packet() -> Any:
    return torch.ops.gaugefix
