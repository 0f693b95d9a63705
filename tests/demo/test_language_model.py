"""The decoders of the recipe and their training."""

import sys

import pytest
import torch
from torch.nn.functional import cross_entropy

import gaugefix
from gaugefix.demo.causal_attention import CausalAttention, Rotary
from gaugefix.demo.corpus import VOCABULARY, decode, encode
from gaugefix.demo.extras import MissingExtraError
from gaugefix.demo.language_model import ArchitectureError, LanguageModel, decoder, warmup_cosine
from gaugefix.demo.layernorm_decoder import LayerNormDecoder
from gaugefix.demo.rotary_decoder import RotaryDecoder

TINY = {"width": 8, "layers": 1, "heads": 2, "context": 6}
ARCHITECTURES = ["rope", "layernorm", "hf-llama", "hf-gpt2"]


def made(architecture: str, **settings) -> LanguageModel:
    if architecture.startswith("hf-"):
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    return LanguageModel(architecture, **{**TINY, **settings}).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_prediction_sees_what_comes_later(architecture):
    model = made(architecture)
    tokens = torch.arange(12).reshape(2, 6)
    changed = tokens.clone()
    changed[:, 3:] += 20
    before, after = model(tokens), model(changed)
    assert before.shape == (2, 6, VOCABULARY)
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_order_of_the_past_counts(architecture):
    model = made(architecture, layers=2).double()
    swapped = torch.tensor([[1, 2, 3, 4], [2, 1, 3, 4]])
    first, second = model(swapped)[:, -1]
    assert not torch.allclose(first, second, rtol=0, atol=1e-6)


def test_rotary_product_depends_on_the_distance_only():
    rotary = Rotary(6, 32).double()
    q, k = torch.randn(2, 1, 6, dtype=torch.float64).expand(2, 32, 6)
    products = rotary(q) @ rotary(k).T
    for distance in (0, 3, 7):
        diagonal = products.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5)  # the angles are float32
    assert torch.allclose(rotary(q).norm(dim=-1), q.norm(dim=-1), atol=1e-6)


def test_grouped_heads_are_repeated_heads():
    torch.manual_seed(0)
    grouped, full = (CausalAttention(8, 4, n, bias=True) for n in (2, 4))
    state = grouped.state_dict()
    for name in ("k.weight", "k.bias", "v.weight", "v.bias"):
        state[name] = state[name].unflatten(0, (2, 2)).repeat_interleave(2, 0).flatten(0, 1)
    full.load_state_dict(state)
    x = torch.randn(3, 5, 8)
    assert torch.allclose(grouped(x), full(x), atol=1e-6)


def test_rotary_decoder_has_the_group_of_llama():
    model = RotaryDecoder(width=12, layers=2, heads=2, kv_heads=1, context=6)
    gauge = gaugefix.discover(model, (model.example_input_array,))
    dimension = {symmetry.name: symmetry.dimension for symmetry in gauge.applied}
    for k in range(2):
        assert dimension[f"blocks.{k}.attention.v:mixing"] == 6**2
        assert dimension[f"blocks.{k}.attention.q:planes"] == 2 * 3
        assert dimension[f"blocks.{k}.mlp.up:scale"] == 32


@pytest.mark.parametrize("net", [RotaryDecoder, LayerNormDecoder])
def test_symmetries_are_proved(net):
    model = net(width=8, layers=1, heads=2, kv_heads=2, context=4)
    gauge = gaugefix.discover(model, (model.example_input_array,))
    gaugefix.verify(model, gauge, (model.example_input_array,))


@torch.no_grad()
def test_loss_is_in_nats_of_one_character():
    model = made("rope")
    tokens, targets = torch.arange(6).reshape(1, 6), torch.arange(1, 7).reshape(1, 6)
    expected = sum(cross_entropy(model(tokens)[0, k], targets[0, k]) for k in range(6)) / 6
    assert float(model.loss((tokens, targets))) == pytest.approx(float(expected), rel=1e-5)


def test_schedule_rises_to_one_and_falls_to_a_tenth():
    factor = warmup_cosine(4, 104)
    assert [factor(k) for k in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factor(54) == pytest.approx(0.55)
    assert factor(104) == factor(200) == pytest.approx(0.1)
    assert all(factor(k) > factor(k + 1) for k in range(4, 104))
    assert warmup_cosine(0, 10)(0) == 1.0


def test_sample_is_drawn_from_the_model_and_repeats():
    model = made("rope").train()
    text = model.sample("ab", 20, seed=1)
    assert text.startswith("ab")
    assert len(text) == 22
    assert model.training
    assert text == model.sample("ab", 20, seed=1) != model.sample("ab", 20, seed=2)


def test_cold_sample_is_the_likeliest_continuation():
    model = made("rope").double()
    tokens = encode("ab")
    for _ in range(9):  # longer than the context of 6
        tokens = torch.cat([tokens, model(tokens[None, -6:])[0, -1].argmax()[None]])
    assert model.sample("ab", 9, temperature=1e-9) == decode(tokens)


def test_unknown_architecture_gets_the_nearest():
    with pytest.raises(ArchitectureError, match=r"got 'layer_norm'\. Did you mean 'layernorm'\? Available: hf-gpt2, "):
        decoder("layer_norm", 8, 1, 2, 2, 4)


def test_gpt2_shares_no_key_heads():
    with pytest.raises(ArchitectureError, match=r"Expected as many kv_heads as heads \(2\) for hf-gpt2, got 1\."):
        decoder("hf-gpt2", 8, 1, 2, 1, 4)


def test_sizes_that_do_not_divide_are_named():
    with pytest.raises(ValueError, match="got width 8, heads 3 and kv_heads 3"):
        decoder("rope", 8, 1, 3, 3, 4)
    with pytest.raises(ValueError, match=r"an even number of channels per head .* got 3\."):
        decoder("rope", 6, 1, 2, 2, 4)


def test_without_transformers_the_error_has_the_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r'for --model\.architecture hf-llama.*pip install "transformers'):
        decoder("hf-llama", 8, 1, 2, 2, 4)
