import pytest

from gaugefix.demo.extras import MissingExtraError, pip_command, require, requirements, too_old


def test_requirements_come_from_the_package():
    assert requirements("")["torch"] == "torch>=2.8"
    assert requirements("recipes")["scikit-learn"] == "scikit-learn>=1.4"
    assert "gaugefix" not in requirements("test")


def test_require_imports_by_the_name_of_the_distribution():
    assert require("pyyaml", "a test").__name__ == "yaml"


def test_require_names_package_purpose_and_command():
    with pytest.raises(MissingExtraError) as caught:
        require("no-such-package", "the moon")
    assert str(caught.value) == (
        'Expected the package no-such-package for the moon, got none. Install it: pip install "no-such-package"'
    )


def test_one_command_installs_several():
    assert pip_command("rich", "scikit-learn") == 'pip install "rich>=13.0" "scikit-learn>=1.4"'


@pytest.mark.parametrize(("requirement", "verdict"), [("torch>=1.0", False), ("torch>=99", True)])
def test_too_old_compares_with_the_installed_version(requirement, verdict):
    assert too_old("torch", requirement) is verdict
