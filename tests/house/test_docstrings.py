"""Everything public says what it is, itself or through the method that it overrides."""

import importlib
import inspect
import pkgutil

import pytest

import gaugefix

PROGRAMS = {"gaugefix.cli", "gaugefix.demo"}  # they may import optional packages, and nobody calls into them


def modules() -> list[str]:
    found = pkgutil.walk_packages(gaugefix.__path__, "gaugefix.")
    return ["gaugefix"] + [m.name for m in found if not any(m.name.startswith(program) for program in PROGRAMS)]


@pytest.mark.parametrize("name", modules())
def test_public_names_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for public, thing in vars(module).items():
        if public.startswith("_") or getattr(thing, "__module__", None) != name:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert thing.__doc__, f"{name}.{public} has no docstring"
        if inspect.isclass(thing):
            undocumented = [
                attribute
                for attribute, member in vars(thing).items()
                if not attribute.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod)))
                and not inspect.getdoc(getattr(thing, attribute))
            ]
            assert not undocumented, f"{name}.{public} has undocumented methods: {undocumented}"
