"""W&B sweeps read as grids of our own."""

import pytest
import yaml

from gaugefix.compare.grid import GridError, make_grid
from gaugefix.compare.sweep import read_sweep
from tests.recipes.runs import ROOT

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
PARAMETERS = {
    "method": {"values": ["baseline", "charge:1e-3"]},
    "model.lr": {"values": ["1e-3", 0.1]},  # YAML takes 1e-3 for a word
    "seed_everything": {"values": [4, 5]},
    "start": {"value": "unbalanced"},
    "trainer.max_steps": {"value": 30},
    "model.momentum": {"distribution": "categorical", "values": [0.5, 0.9]},
    "data.batch_size": {"value": 32},
    "data.image": {"values": [False]},
}


def write(path, **changes):
    sweep = {"program": "recipes/feedforward.py", "method": "grid", "parameters": PARAMETERS, **changes}
    path.write_text(yaml.safe_dump(sweep))
    return path


def test_axes_options_and_what_the_command_has(tmp_path):
    command = ["python3", "${program}", "fit", "--config", "configs/x.yaml", "--wandb", "online", "--model.widths=[8]"]
    given = read_sweep(write(tmp_path / "s.yaml", command=[*command, "${args}"]), "feedforward")
    assert given == {
        "config": "configs/x.yaml",
        "methods": ("baseline", "charge:1e-3"),
        "lrs": (0.001, 0.1),
        "seeds": (4, 5),
        "starts": ("unbalanced",),
        "max_steps": 30,
        "settings": ("model.widths=[8]", "data.batch_size=32", "data.image=false"),
        "axes": {"model.momentum": ("0.5", "0.9")},
    }


def test_a_further_axis_is_part_of_the_method(tmp_path):
    grid = make_grid("feedforward", **read_sweep(write(tmp_path / "s.yaml"), "feedforward"))
    assert [variant.label for variant in grid.variants] == [
        "baseline+momentum=0.5",
        "baseline+momentum=0.9",
        "charge:1e-3+momentum=0.5",
        "charge:1e-3+momentum=0.9",
    ]
    assert len(grid.runs) == 4 * 2 * 2
    words = grid.arguments(grid.runs[2], tmp_path)
    assert {"--model.momentum=0.5", "--data.batch_size=32", "--method=charge:1e-3", "--start=unbalanced"} <= {*words}
    assert "--label=charge:1e-3+momentum=0.5" in words
    assert grid.runs[2].name == "charge=1e-3+momentum=0.5-lr0.001-unbalanced-s4"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_that_comes_with_gaugefix_is_the_grid_that_it_says(path):
    sweep = yaml.safe_load(path.read_text())
    grid = make_grid(path.stem, **read_sweep(path, path.stem))
    expected = 1
    for parameter in sweep["parameters"].values():
        expected *= len(parameter.get("values", [None]))
    assert len({run.name for run in grid.runs}) == len(grid.runs) == expected
    assert f"# {expected} runs" in path.read_text()
    assert grid.config.is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"model.lr": {"min": 0.1, "max": 1.0}}}, "'model.lr' in '.*', got max, min"),
        (
            {"parameters": {"model.lr": {"distribution": "log_uniform_values", "min": 0.1, "max": 1}}},
            r"'model.lr' in '.*', got distribution: log_uniform_values\. A grid needs the values themselves",
        ),
        ({"parameters": {"model": {"parameters": {"lr": {"value": 1}}}}}, "Expected values or value for 'model' in"),
        ({"parameters": {"model.lr": {"values": []}}}, "Expected a list with something in it for the values of"),
        ({"parameters": {"model.lr": {"values": [0.1, -1]}}}, "Expected positive numbers for the lrs of"),
        ({"parameters": {"start": {"value": "badly"}}}, "Expected balanced or unbalanced for the starts of"),
        ({"parameters": {"seed_everything": {"values": [True]}}}, "Expected integers that are not negative for the"),
        ({"parameters": {"trainer.max_steps": {"values": [1, 2]}}}, "Expected one value for 'trainer.max_steps'"),
        ({"parameters": {"wandb": {"values": ["offline", "online"]}}}, "It has an option of its own: --wandb"),
        ({"parameters": None}, "Expected a W&B sweep with a 'parameters:' block"),
        ({"method": "bayes"}, "Expected 'method: grid' in '.*', got 'bayes'"),
        ({"program": "recipes/transformer.py"}, "Expected a sweep of feedforward for --sweep, got"),
    ],
)
def test_what_is_no_grid_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(GridError, match=message):
        read_sweep(write(tmp_path / "s.yaml", **changes), "feedforward")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(GridError, match=r"Expected a YAML file for --sweep, got '.*none\.yaml'"):
        read_sweep(tmp_path / "none.yaml", "feedforward")
