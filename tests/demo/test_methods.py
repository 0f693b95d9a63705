"""Methods in one word: what they stand for, and what is no method."""

import pytest
import yaml

from gaugefix.callbacks import GaugeProjection
from gaugefix.demo.methods import LAZY, STRENGTHS, UNBALANCED_LOG_STD, MethodError, method_names, parse_method
from gaugefix.regularizers import term_names
from gaugefix.slices import slice_names
from recipes.feedforward import main
from tests.recipes.runs import ROOT, read

BASELINE = ROOT / "configs" / "feedforward" / "baseline.yaml"
SHORT = [
    "--trainer.max_steps=2",
    "--picture=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_checkpointing=false",
]


def callbacks(label: str, recipe: str = "feedforward") -> list[tuple[str, dict]]:
    made = parse_method(label, recipe).callbacks
    return [(callback["class_path"].rsplit(".", 1)[-1], callback["init_args"]) for callback in made]


def test_baseline_adds_nothing():
    method = parse_method("baseline", "feedforward")
    assert (method.options, method.callbacks) == ((), ())


def test_parts_become_options_terms_and_projections_in_the_order_in_which_they_act():
    method = parse_method("minimal_norm@7+weight_decay:0.5+charge:2e-2@3", "feedforward")
    assert method.options == (("model.weight_decay", 0.5),)
    assert callbacks(method.label) == [
        ("GaugeRegularizer", {"term": "charge", "strength": 0.02, "every_n_steps": 3}),
        ("GaugeProjection", {"slice": "minimal_norm", "every_n_steps": 7}),
    ]


def test_what_is_not_said_has_its_usual_value():
    for name in ("minimal_norm", "flat"):
        settings = {"slice": name, "every_n_steps": GaugeProjection(name).every_n_steps}
        assert callbacks(name) == [("GaugeProjection", settings)]
    ((_, settings),) = callbacks("charge")
    assert settings == {"term": "charge", "strength": STRENGTHS["charge"], "every_n_steps": LAZY}
    strengths = [
        parse_method("weight_decay", recipe).options[0][1] for recipe in ("feedforward", "transformer", "neural_ode")
    ]
    assert strengths == [STRENGTHS["weight_decay"], 0.1, 0.1]


def test_a_term_with_the_name_of_a_slice_is_soft():
    assert callbacks("unit_norm")[0][0] == "GaugeProjection"
    assert callbacks("soft_unit_norm:1")[0] == (
        "GaugeRegularizer",
        {"term": "unit_norm", "strength": 1.0, "every_n_steps": LAZY},
    )
    with pytest.raises(MethodError, match=r"Did you mean 'soft_reference'"):
        parse_method("soft_referense", "feedforward")


@pytest.mark.parametrize("recipe", ["feedforward", "neural_ode", "transformer"])
def test_every_slice_and_every_term_is_a_method(recipe):
    found = [setting for name in method_names(recipe) for _, setting in callbacks(name, recipe)]
    assert {s["term"] for s in found if "term" in s} == {*term_names()}
    assert {*slice_names()} - {s.get("slice") for s in found} == {"reference"}  # which needs a point to be near to


def test_time_is_a_gauge_of_neural_odes_only():
    assert callbacks("proper_time@9", "neural_ode") == [("TimeGrid", {"slice": "proper_time", "every_n_steps": 9})]
    assert parse_method("kinetic:0.5", "neural_ode").options == (("model.kinetic", 0.5),)
    with pytest.raises(MethodError, match=r"got 'kinetic'\. 'kinetic' belongs to the recipe neural_ode\."):
        parse_method("kinetic", "feedforward")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "minimal_nrom",
            "Expected a method for feedforward, got 'minimal_nrom'. Did you mean 'minimal_norm'? Available",
        ),
        ("", "Expected a method for feedforward, got ''."),
        ("charge+", "Expected a method for feedforward, got 'charge+'."),
        ("charge:", "Expected a positive number behind ':', got '' in 'charge:'."),
        ("charge:-1", "Expected a positive number behind ':', got '-1' in 'charge:-1'."),
        ("charge:nan", "Expected a positive number behind ':', got 'nan' in 'charge:nan'."),
        ("minimal_norm:0.1", "Expected no strength for minimal_norm, got 'minimal_norm:0.1'."),
        ("minimal_norm@0", "Expected a positive number of optimizer steps behind '@', got '0' in 'minimal_norm@0'."),
        ("minimal_norm@1.5", "Expected a positive number of optimizer steps behind '@', got '1.5'"),
        ("weight_decay@5", "Expected no interval for weight_decay, got 'weight_decay@5'. Leave '@5' out."),
        ("baseline:1", "Expected no strength for baseline, got 'baseline:1'."),
        ("baseline+charge", "Expected parts that go together for the method, got 'baseline+charge'."),
        ("charge+charge:1", "Expected parts that go together for the method, got 'charge+charge:1'."),
    ],
)
def test_what_is_no_method_is_named_with_the_mend(label, message):
    with pytest.raises(MethodError) as caught:
        parse_method(label, "feedforward")
    assert str(caught.value).startswith(message)


def test_a_recipe_writes_down_what_its_method_stands_for(tmp_path):
    chosen = ["--method=minimal_norm@1+charge:0.5+weight_decay:0.25", "--start=unbalanced", "--seed_everything=3"]
    directory = tmp_path / "run"
    done = main(["fit", "--config", str(BASELINE), "--directory", str(directory), *chosen, *SHORT, "--quiet=true"])
    assert done.directory == directory
    summary, _ = read(directory)
    assert summary["method"] == "minimal_norm@1+charge:0.5+weight_decay:0.25"
    assert (summary["slice"], summary["regularizer"], summary["strength"]) == ("minimal_norm", "charge", 0.5)
    assert (summary["start"], summary["weight_decay"], summary["projections"]) == ("unbalanced", 0.25, 3)
    assert 0 < summary["regularizer_seconds"] < summary["seconds"]

    saved = yaml.safe_load((directory / "config.yaml").read_text())
    assert (saved["method"], saved["start"], saved["directory"]) == (None, None, None)
    names = [callback["class_path"].rsplit(".", 1)[-1] for callback in saved["trainer"]["callbacks"]]
    assert names == ["UnbalancedStart", "GaugeRegularizer", "GaugeProjection", "OrbitDrift"]
    assert saved["trainer"]["callbacks"][0]["init_args"] == {"log_std": UNBALANCED_LOG_STD, "seed": 3}
    again = main(["fit", "--config", str(directory / "config.yaml"), "--out", str(tmp_path)]).directory
    assert again.name.endswith("-minimal_norm@1+charge:0.5+weight_decay:0.25-s3")
    assert read(again)[0]["train_loss_final"] == summary["train_loss_final"]


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ("baseline", ["--method=charg"], "Did you mean 'charge'?"),
        ("minimal_norm", ["--method=charge"], "Expected a configuration that leaves the gauge alone for --method"),
    ],
)
def test_a_recipe_refuses_a_method_like_any_other_option(config, more, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--config", str(BASELINE.with_name(f"{config}.yaml")), *more])
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
