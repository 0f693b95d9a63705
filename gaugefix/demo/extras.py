"""Optional packages: which are there, and the command that installs one that is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from types import ModuleType

from gaugefix.errors import GaugeError

MODULE_OF = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
"""Import name of a distribution, where it differs from the distribution's."""


class MissingExtraError(GaugeError, ImportError):
    """A package is missing that this part of gaugefix needs; the message has the command that installs it."""


def requirements(extra: str) -> dict[str, str]:
    """Return distribution name → requirement (``"rich" → "rich>=13.0"``) of an extra of gaugefix; "" is the library."""
    found: dict[str, str] = {}
    for line in importlib.metadata.requires("gaugefix") or []:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        named = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name and name[0] != "gaugefix" and (named[1] if named else "") == extra:
            found[name[0].lower()] = requirement
    return found


def installed(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def too_old(distribution: str, requirement: str) -> bool:
    """Whether an installed distribution is outside the versions of a requirement."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        return False  # it comes with Lightning, whose absence is reported anyway
    return not Requirement(requirement).specifier.contains(installed(distribution) or "0", prereleases=True)


def pip_command(*distributions: str) -> str:
    """Return the exact command that installs these packages in the versions that the recipes need."""
    known = requirements("recipes")
    return "pip install " + " ".join(f'"{known.get(name, name)}"' for name in distributions)


def require(distribution: str, what: str) -> ModuleType:
    """Import an optional package.

    Args:
        distribution: its name for pip, such as ``scikit-learn``.
        what: what needs it, for the error.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        return importlib.import_module(MODULE_OF.get(distribution, distribution))
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Expected the package {distribution} for {what}, got none. Install it: {pip_command(distribution)}"
        ) from error
