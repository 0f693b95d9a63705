"""``gaugefix doctor``: does what gaugefix stands on work, and which optional packages are there."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

from gaugefix.demo.extras import installed, pip_command, requirements, too_old


def examine() -> tuple[bool, str]:
    """Return whether the library can work, and a report with the command that mends each gap."""
    needed = requirements("")
    lines = [f"gaugefix {installed('gaugefix')}, Python {platform.python_version()}, {platform.system()}"]
    lines += ["", "needed:"]
    broken = _gaps(needed)
    lines += [_line(name, needed[name]) for name in needed]
    trouble = _trouble() if not broken else []
    lines += [f"  {line}" for line in trouble or ([_machine()] if not broken else [])]
    optional = requirements("recipes")
    lines += ["", "for the recipes and the demo:"]
    lines += [_line(name, optional[name]) for name in optional]
    missing = _gaps(optional)
    lines.append("")
    if broken:
        lines.append("To mend: pip install " + " ".join(f'"{needed[name]}"' for name in broken))
    if missing:
        lines.append(f"For the recipes and the demo: {pip_command(*missing)}")
    if not (broken or missing or trouble):
        lines.append("Everything is there.")
    return not (broken or trouble), "\n".join(lines)


def _gaps(wanted: Mapping[str, str]) -> list[str]:
    return [name for name, requirement in wanted.items() if not installed(name) or too_old(name, requirement)]


def _line(name: str, requirement: str) -> str:
    version = installed(name)
    verdict = "missing" if version is None else f"{version}, too old" if too_old(name, requirement) else version
    return f"  {name:<16} {verdict:<18} {requirement}"


def _trouble() -> list[str]:
    """Import the two that may be installed and still not work, and discover the gauge group of a tiny network."""
    try:
        import lightning.pytorch  # noqa: F401  whether it imports is the question
        import torch

        import gaugefix
    except Exception as error:
        return [f"does not import: {type(error).__name__}: {error}"]
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    try:
        found = gaugefix.discover(net, (torch.zeros(1, 2),)).dimension
    except Exception as error:
        return [f"discovery fails on a tiny network: {type(error).__name__}: {error}"]
    return [] if found == 3 else [f"discovery found {found} redundant dimensions of a tiny network that has 3"]


def _machine() -> str:
    torch = sys.modules["torch"]
    devices = f"{torch.cuda.device_count()} CUDA device(s)" if torch.cuda.is_available() else "no CUDA device"
    return f"works; {torch.get_num_threads()} of {os.cpu_count()} cores in use, {devices}"
