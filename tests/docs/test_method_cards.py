"""Every method has a card, with the facts of its class, and what the card shows runs."""

import importlib.util
import math
import re

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from torch.utils.data import DataLoader, TensorDataset

from gaugefix import GaugeProjection, GaugeRegularizer
from gaugefix.demo.corpus import VOCABULARY
from gaugefix.demo.digits import CLASSES, PIXELS, DigitsData
from gaugefix.demo.language_model import LanguageModel
from gaugefix.demo.mlp import MLP
from gaugefix.demo.ode_classifier import ODEClassifier
from gaugefix.demo.time_grid import TimeGrid
from gaugefix.regularizers import term_class, term_names
from gaugefix.slices import slice_names
from tests.docs.cards import CARDS, ROOT, code_blocks, read

SECTIONS = ["Measured", "When to use it", "When not", "Use"]
FACTS = ["gauge condition", "residual freedom", "changes the function", "cost", "source"]
ON_BLOCKS = {"nuclear_norm", "orthogonality"}
CLOCKS = {"equidistribution", "proper_time"}
WITHOUT_YAML = {"reference", "speed_variance", "jacobian_frobenius"}
WITH_TRAINER = [name for name in CARDS if "Trainer(" in read(name)]
STEPS = 2


def load_script():
    spec = importlib.util.spec_from_file_location("method_cards", ROOT / "docs" / "method_cards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


method_cards = load_script()
EXTRA = {"term", *method_cards.MEASURED.values()}  # rows that not every card has


def card_of(term: str) -> str:
    return f"soft_{term}" if term in slice_names() else term


# ---- what is there --------------------------------------------------------------------------------------------------
def test_every_slice_term_and_clock_has_a_card():
    assert {*slice_names(), *map(card_of, term_names()), *CLOCKS, "dyadic"} <= {*CARDS}


def test_every_card_is_listed_once():
    listed = [name for names in method_cards.KINDS.values() for name in names]
    assert sorted(listed) == CARDS


def test_controls_are_the_terms_that_are_gauge_invariant():
    invariant = {card_of(term) for term in term_names() if term_class(term).invariant}
    assert {*method_cards.KINDS["Controls"]} == invariant


@pytest.mark.parametrize("name", CARDS)
def test_a_card_has_the_same_fields_in_the_same_order(name):
    text = read(name)
    assert text.startswith(f"# `{name}`\n\n")
    assert re.fullmatch(r"[^.]+\.", method_cards.summary(text))  # one sentence
    assert [row for row in method_cards.read_facts(text) if row not in EXTRA] == FACTS
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == SECTIONS
    assert ("term" in method_cards.read_facts(text)) == (name in map(card_of, term_names()))


@pytest.mark.parametrize("term", term_names())
def test_the_facts_of_a_term_are_those_of_its_class(term):
    cls, facts = term_class(term), method_cards.read_facts(read(card_of(term)))
    assert facts["gauge condition"] == cls.condition
    assert facts["residual freedom"] == cls.freedom
    assert facts["changes the function"] == cls.changes_function
    assert facts["cost"] == cls.cost
    assert facts["source"] == cls.source
    assert cls.__doc__.startswith(facts["term"])


@pytest.mark.parametrize("name", sorted({*slice_names(), *map(card_of, term_names())} - {"reference"}))
def test_the_cost_of_a_method_was_measured(name):
    assert "% of a step" in method_cards.read_facts(read(name))["measured cost"]


def test_generated_parts_are_up_to_date():
    stale = [path.name for path, text in method_cards.render().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "python docs/method_cards.py writes them"


# ---- what it shows --------------------------------------------------------------------------------------------------
def data(model):
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, LanguageModel):
        text = torch.randint(VOCABULARY, (4 * STEPS, 9), generator=generator)
        return DataLoader(TensorDataset(text[:, :-1].contiguous(), text[:, 1:].contiguous()), batch_size=4)
    inputs = torch.randn(8 * STEPS, PIXELS, generator=generator)
    return DataLoader(TensorDataset(inputs, torch.arange(len(inputs)) % CLASSES), batch_size=8)


def network(name):
    torch.manual_seed(0)
    if name in ON_BLOCKS:
        return LanguageModel("rope", width=8, layers=1, heads=2, context=8)
    return ODEClassifier(dimension=4, hidden=8) if name in CLOCKS else MLP([8, 8, 8])


def settings(callback):
    keys = ("slice", "term", "strength", "every_n_steps", "dyadic")
    return type(callback), {key: getattr(callback, key) for key in keys if hasattr(callback, key)}


def from_yaml(name, directory):
    (block,) = code_blocks(read(name), "yaml")
    config = directory / "card.yaml"
    config.write_text(block)
    defaults = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    cli = LightningCLI(
        MLP, DigitsData, run=False, trainer_defaults=defaults, seed_everything_default=0,
        args=["--config", str(config)],
    )  # fmt: skip
    (callback,) = [c for c in cli.trainer.callbacks if isinstance(c, (GaugeProjection, GaugeRegularizer, TimeGrid))]
    return callback


def from_python(name):
    (block,) = code_blocks(read(name), "python")
    names = {}
    exec(compile(block.replace("Trainer(", "Trainer(accelerator='cpu', logger=False, "), name, "exec"), names)
    (callback,) = [c for c in names["trainer"].callbacks if isinstance(c, (GaugeProjection, GaugeRegularizer))]
    return callback


@pytest.mark.parametrize("name", [name for name in CARDS if name not in WITHOUT_YAML | {"kinetic"}])
def test_the_yaml_of_a_card_is_a_callback_that_works(name, tmp_path):
    callback = from_yaml(name, tmp_path)
    callback.every_n_steps = 1  # so that it acts within these steps
    trainer = Trainer(
        max_steps=STEPS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, log_every_n_steps=1, callbacks=[callback],
    )  # fmt: skip
    model = network(name)
    trainer.fit(model, data(model), data(model))
    assert callback.seconds > 0.0
    if isinstance(callback, GaugeProjection):
        assert callback.projections > 0
        assert callback.rolled_back == 0
    elif isinstance(callback, TimeGrid):
        assert callback.fits == STEPS
    else:
        assert math.isfinite(callback.value)


@pytest.mark.parametrize("name", WITH_TRAINER)
def test_yaml_and_python_of_a_card_say_the_same(name, tmp_path):
    assert settings(from_yaml(name, tmp_path)) == settings(from_python(name))


@pytest.mark.parametrize("name", [name for name in CARDS if name not in WITH_TRAINER])
def test_the_python_of_a_card_runs(name):
    torch.manual_seed(0)
    (block,) = code_blocks(read(name), "python")
    exec(compile(block, name, "exec"), {})


def test_the_yaml_of_the_kinetic_penalty_is_an_option_of_the_recipe():
    (block,) = code_blocks(read("kinetic"), "yaml")
    options = yaml.safe_load(block)["model"]["init_args"]
    baseline = yaml.safe_load((ROOT / "configs/neural_ode/baseline.yaml").read_text(encoding="utf-8"))
    assert ODEClassifier(**baseline["model"]["init_args"] | options).kinetic == 0.001


@pytest.mark.parametrize("name", sorted(WITHOUT_YAML))
def test_a_card_without_yaml_says_so(name):
    assert not code_blocks(read(name), "yaml")
    assert "There is no YAML for it" in read(name)
