"""Models of `transformers` inside a LightningModule: what people train, with ties, dropout and adapters."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gaugefix import GaugeProjection, OrbitDrift
from gaugefix.errors import ConvergenceWarning
from gaugefix.testing import tolerance

transformers = pytest.importorskip("transformers")

VOCABULARY, LENGTH = 17, 12
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
GPT2 |= {"bos_token_id": None, "eos_token_id": None}


def gpt2(tied: bool) -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, tie_word_embeddings=tied))


def llama(tied: bool) -> nn.Module:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, num_key_value_heads=1, tie_word_embeddings=tied)
    )


def adapted() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    adapter = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    return get_peft_model(llama(tied=True), adapter)


class Language(LightningModule):
    """Next-token prediction; ``forward`` takes token numbers."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.example_input_array = torch.arange(2 * LENGTH).reshape(2, LENGTH) % VOCABULARY

    def forward(self, ids: Tensor) -> Tensor:
        return self.net(input_ids=ids, use_cache=False).logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        logits = self(batch[0][:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[0][:, 1:].flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def fit(net: nn.Module, projection: GaugeProjection, steps: int = 12, precision: str = "32-true") -> Language:
    torch.manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (64, LENGTH), generator=torch.Generator().manual_seed(1))
    model = Language(net)
    trainer = Trainer(
        max_steps=steps,
        callbacks=[projection, OrbitDrift(every_n_steps=4)],
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        trainer.fit(model, DataLoader(TensorDataset(ids), batch_size=16))
    return model


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("make", [gpt2, llama])
def test_projections_keep_the_function_and_the_ties(make, tied):
    torch.manual_seed(0)
    net = make(tied)
    projection = GaugeProjection(every_n_steps=4)
    fit(net, projection)
    assert projection.projections == 4
    assert projection.rolled_back == projection.skipped == 0
    assert 0.0 < projection.invariance_error <= tolerance(torch.float32)
    assert (net.get_input_embeddings().weight is net.get_output_embeddings().weight) is tied
    names = [name for name, _ in net.named_parameters()]
    assert ("lm_head.weight" in names) is not tied


def test_a_tied_checkpoint_loads_where_gaugefix_is_unknown(tmp_path):
    torch.manual_seed(0)
    net = llama(tied=True)
    fit(net, GaugeProjection(every_n_steps=4))
    net.eval().save_pretrained(tmp_path)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(LENGTH).reshape(1, -1) % VOCABULARY
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, net(input_ids=ids).logits)
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_bf16_parameters():
    torch.manual_seed(0)
    projection = GaugeProjection(every_n_steps=4)
    fit(llama(tied=True), projection, precision="bf16-true")
    assert projection.projections == 4
    assert projection.invariance_error <= tolerance(torch.bfloat16)


def test_adapters_move_and_their_frozen_base_does_not():
    pytest.importorskip("peft")
    torch.manual_seed(0)
    net = adapted()
    before = {name: p.detach().clone() for name, p in net.named_parameters() if not p.requires_grad}
    projection = GaugeProjection(every_n_steps=4)
    fit(net, projection)
    assert projection.projections >= 3
    assert projection.invariance_error <= tolerance(torch.float32)
    assert before
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters() if name in before)
    factors = {name: p for name, p in net.named_parameters() if p.requires_grad}
    assert all(bool((p != 0).any()) for p in factors.values())
    assert projection.history[-1]["drift_after"] <= 1e-3
