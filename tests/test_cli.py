"""The gaugefix command: what a person types, right and wrong."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from gaugefix import cli
from gaugefix.demo import doctor

ROOT = Path(__file__).parents[1]


def refused(capsys, *argv: str) -> str:
    """The one line on stderr of a command that ends with status 2."""
    assert cli.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("gaugefix: ")
    return line.removeprefix("gaugefix: ")


def test_parsing_imports_neither_torch_nor_lightning():
    program = (
        "import sys; from gaugefix import cli; "
        "cli.parse(['demo', '--steps', '3']); cli.parse(['inspect', 'mlp']); cli.main(['insepct']); "
        "cli.parse(['compare', 'feedforward', '--methods', 'baseline,charge:0.1', '--seeds', '3']); "
        "cli.main(['compare', 'feedforward', '--lrs', 'fast']); cli.parse(['report', 'runs']); "
        "print(*{'torch', 'lightning', 'numpy', 'rich', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_installed_command_prints_the_version():
    command = Path(sys.executable).with_name("gaugefix")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"gaugefix {importlib.metadata.version('gaugefix')}\n"


def test_no_command_shows_the_commands(capsys):
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["insepct"],
            "Expected a command for gaugefix, got 'insepct'. Did you mean 'inspect'? "
            "Available: compare, demo, doctor, inspect, recipes, report, wandb-report.",
        ),
        (
            ["demo", "--stpes", "3"],
            "Expected an option of 'gaugefix demo', got '--stpes'. Did you mean '--steps'? "
            "Available: --help, --out, --seed, --steps.",
        ),
        (["--verison"], "Expected an option of 'gaugefix', got '--verison'. Did you mean '--version'?"),
        (["demo", "--steps", "0"], "Argument --steps: expected a positive integer, got '0'."),
        (["demo", "--steps", "2.5"], "Argument --steps: expected a positive integer, got '2.5'."),
        (["demo", "--seed", "x"], "Argument --seed: expected an integer from 0 to 2^32 - 1, got 'x'."),
        (["demo", "--out"], "Argument --out: expected one argument."),
        (["inspect"], "The following arguments are required: model."),
        (["compare"], "The following arguments are required: recipe."),
        (["report"], "The following arguments are required: directory."),
        (
            ["compare", "feedforward", "--lrs", "0.1,-1"],
            "Argument --lrs: expected positive numbers with commas between them, got '0.1,-1'.",
        ),
        (["compare", "feedforward", "--lrs", "nan"], "Argument --lrs: expected positive numbers with commas"),
        (["compare", "feedforward", "--seeds", "0"], "Argument --seeds: expected a positive integer, got '0'."),
        (
            ["compare", "feedforward", "--seeds", "1,x"],
            "Argument --seeds: expected an integer from 0 to 2^32 - 1, got 'x'.",
        ),
        (
            ["compare", "feedforward", "--methods", "a,,b"],
            "Argument --methods: expected names with commas between them",
        ),
        (
            ["compare", "feedforward", "--start", "bad"],
            "Argument --start: expected balanced, unbalanced or both, got 'bad'.",
        ),
        (
            ["compare", "feedforward", "--method", "charge"],
            "Expected an option of 'gaugefix compare', got '--method'. Did you mean '--methods'?",
        ),
        (
            ["compare", "feedforward", "--methods", "baseline,chagre"],
            "Expected a method for feedforward, got 'chagre'. Did you mean 'charge'? Available: balance, baseline,",
        ),
        (["compare", "feedfoward"], "Expected the name of a recipe to compare on, got 'feedfoward'. Did you mean"),
        (["report", "no/such/place"], "Expected a directory of runs for directory, got 'no/such/place'"),
        (["recipes", "feedfoward"], "Expected the name of a recipe, got 'feedfoward'. Did you mean 'feedforward'?"),
        (
            ["inspect", "mpl"],
            "Expected a model such as my_package.my_module:make_model for inspect, got 'mpl'. Did you mean 'mlp'? "
            "Available: layernorm_decoder, mlp, residual_cnn, rotary_decoder.",
        ),
        (
            ["inspect", "no_such_package.models:make"],
            "Expected a module that can be imported for inspect, got 'no_such_package.models': there is no "
            "'no_such_package'.",
        ),
        (
            ["inspect", "gaugefix.demo.mlp:MPL"],
            "Expected a callable of 'gaugefix.demo.mlp' for inspect, got 'MPL'. Did you mean 'MLP'? Available: MLP.",
        ),
        (
            ["inspect", "gaugefix.demo.residual_cnn:ResidualBlock"],
            "Expected a callable without arguments for inspect, got 'gaugefix.demo.residual_cnn:ResidualBlock': "
            "missing a required argument: 'width'. Wrap it in a function that returns (model, args)",
        ),
        (["inspect", "os:getcwd"], "Expected 'os:getcwd' to return (model, args), (model, args, kwargs) or a "),
    ],
)
def test_a_mistake_gets_one_line_that_names_the_mend(argv, message, capsys):
    assert refused(capsys, *argv).startswith(message)


def test_what_compare_was_told():
    words = ["compare", "feedforward", "--methods", "baseline, charge:0.1", "--lrs", "1e-2,0.1,0.01", "--seeds", "5,3"]
    typed = cli.parse([*words, "--start", "both", "--set", "model.momentum=0.5", "--set", "threads=2"])
    assert typed.methods == ("baseline", "charge:0.1")
    assert (typed.lrs, typed.seeds, typed.start) == ((0.01, 0.1), (5, 3), ("balanced", "unbalanced"))
    assert typed.set == ["model.momentum=0.5", "threads=2"]
    assert typed.words[:3] == ["gaugefix", "compare", "feedforward"]
    assert cli.parse(["compare", "x", "--seeds", "3"]).seeds == (0, 1, 2)


FACTORIES = """
import torch
from torch import nn

def pair():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (torch.zeros(3, 4),)

def broken():
    raise ValueError("the weights are on the moon")

class WithKeywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x, *, scale):
        return scale * self.second(torch.relu(self.first(x)))

def triple():
    return WithKeywords(), (torch.zeros(3, 4),), {"scale": torch.ones(3, 1)}

class Sorted(nn.Module):
    def forward(self, x):
        return x[: int(x.sum())]

def refused():
    return Sorted(), torch.ones(3)
"""


@pytest.fixture
def factories(tmp_path, monkeypatch) -> str:
    (tmp_path / "gaugefix_test_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "gaugefix_test_factories"
    sys.modules.pop("gaugefix_test_factories", None)


@pytest.mark.parametrize(("name", "dimension"), [("pair", 6), ("triple", 5)])
def test_inspect_prints_the_table_of_a_model_in_the_working_directory(factories, name, dimension, capsys):
    assert cli.main(["inspect", f"{factories}:{name}"]) == 0
    assert f"{dimension} continuous redundant dimensions" in capsys.readouterr().out


def test_inspect_verify_reports_the_error(factories, capsys):
    assert cli.main(["inspect", f"{factories}:pair", "--verify"]) == 0
    assert "largest error" in capsys.readouterr().out


def test_inspect_names_what_the_factory_raised(factories, capsys):
    line = refused(capsys, "inspect", f"{factories}:broken")
    assert line == (
        f"Expected to call '{factories}:broken' for inspect, got ValueError: the weights are on the moon. "
        "Mend it there first."
    )


def test_inspect_says_when_a_model_cannot_be_captured(factories, capsys):
    assert "torch.export" in refused(capsys, "inspect", f"{factories}:refused")


@pytest.mark.parametrize(
    ("name", "line"),
    [("residual_cnn", "48 continuous redundant dimensions"), ("rotary_decoder", "blocks.2.attention.v:mixing")],
)
def test_inspect_knows_the_models_of_the_recipes(name, line, capsys):
    assert cli.main(["inspect", name]) == 0
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["feedforward", "transformer"])
def test_recipes_lists_every_configuration_with_its_launch_line(recipe, capsys):
    assert cli.main(["recipes"]) == 0
    shown = capsys.readouterr().out
    configs = sorted((ROOT / "configs" / recipe).glob("*.yaml"))
    assert configs
    for path in configs:
        assert f"python recipes/{recipe}.py fit --config configs/{recipe}/{path.name}\n" in shown


def test_recipes_lists_a_script_without_configurations_with_its_launch_line(capsys):
    assert cli.main(["recipes", "quantization"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "  python recipes/quantization.py runs/transformer/<run> --slices minimal_norm spectral"


def test_recipes_outside_a_checkout_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gaugefix.__file__", str(tmp_path / "lib" / "gaugefix" / "__init__.py"))
    assert "start the command in a checkout" in refused(capsys, "recipes")


def test_doctor_finds_a_working_installation(capsys):
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert importlib.metadata.version("torch") in shown
    assert "Everything is there." in shown


def test_doctor_gives_the_command_for_what_is_missing(monkeypatch):
    def without(name):
        return None if name in ("scikit-learn", "torchmetrics") else importlib.metadata.version(name)

    monkeypatch.setattr(doctor, "installed", without)
    healthy, report = doctor.examine()
    assert not healthy
    assert 'To mend: pip install "torchmetrics>=1.0"' in report
    assert 'For the recipes and the demo: pip install "scikit-learn>=1.4"' in report


def test_an_output_that_cannot_be_written_gets_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert refused(capsys, "demo", "--out", str(tmp_path / "file")).startswith("Expected a directory to write results")
