"""Two-layer models of at most 1500 parameters, on which the redundant dimensions can be counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.discovery.transformers_small import encoder
from tests.zoo.decoders import CAUSAL
from tests.zoo.wrapper import Entry, Outputs

Toy = tuple[nn.Module, tuple[Tensor, ...]]

VOCABULARY, LENGTH = 13, 8
# No padding: its row of the embedding has no gradient, though an effect.
IDS = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SIZES: dict[str, Any] = {
    **IDS,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": LENGTH,
    "tie_word_embeddings": False,
}
GPT2 = {**IDS, "n_embd": 8, "n_inner": 12, "n_layer": 2, "n_head": 2, "n_positions": LENGTH}


MANY = {"vocab_size": 31}
"""Without positions in the stream, a layer that reads the embedding alone sees as many vectors as there are tokens:
with too few of them its parameters are not determined by what it does on all."""


def _language(
    config: str, model: str, settings: dict[str, Any], fixed: dict[str, Any], attention: str = "sdpa"
) -> Callable[[], Toy]:
    """A language model with every token and every position among its inputs."""

    def build() -> Toy:
        net, _ = Entry(config, model, settings, fixed=fixed).build(attention)
        return net, (torch.arange(6 * LENGTH).reshape(6, LENGTH) % settings["vocab_size"],)

    return build


def _causal(name: str, attention: str = "sdpa", **more: Any) -> Callable[[], Toy]:
    return _language(f"{name}Config", f"{name}ForCausalLM", {**SIZES, **more}, CAUSAL, attention)


def _gpt(name: str, model: str, attention: str = "sdpa", **more: Any) -> Callable[[], Toy]:
    return _language(f"{name}Config", model, {**GPT2, **more}, CAUSAL, attention)


def _adapted() -> Toy:
    """LoRA of rank 2 on the queries and values of a frozen Llama."""
    from peft import LoraConfig, get_peft_model

    net, inputs = _causal("Llama", num_key_value_heads=1)()
    assert isinstance(net, Outputs)
    adapter = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    return Outputs(get_peft_model(net.model, adapter), net.keys, net.fixed), inputs


def _encoder(norm_first: bool) -> Callable[[], Toy]:
    return lambda: (encoder(norm_first), (torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)),))


TOYS: dict[str, Callable[[], Toy]] = {
    "GPT-2, untied": _gpt("GPT2", "GPT2LMHeadModel", tie_word_embeddings=False),
    "GPT-2, tied": _gpt("GPT2", "GPT2LMHeadModel", tie_word_embeddings=True),
    "GPT-J": _gpt("GPTJ", "GPTJForCausalLM", rotary_dim=2, n_inner=6, tie_word_embeddings=False, **MANY),
    "OPT": _causal("OPT", ffn_dim=12, word_embed_proj_dim=8),
    "OPT, tied": _causal("OPT", ffn_dim=12, word_embed_proj_dim=8, tie_word_embeddings=True),
    "OPT with GELU": _causal("OPT", ffn_dim=12, word_embed_proj_dim=8, activation_function="gelu"),
    "Llama": _causal("Llama", num_key_value_heads=1),
    "Llama, tied": _causal("Llama", num_key_value_heads=1, tie_word_embeddings=True),
    "Qwen2": _causal("Qwen2", num_key_value_heads=1),
    "Qwen3": _causal("Qwen3", num_key_value_heads=1, head_dim=4),
    "Falcon": _causal("Falcon", ffn_hidden_size=6, **MANY),
    "Falcon, tied": _causal("Falcon", ffn_hidden_size=6, tie_word_embeddings=True, **MANY),
    "Falcon with ALiBi, eager": _causal(
        "Falcon", "eager", ffn_hidden_size=6, alibi=True, parallel_attn=False, multi_query=False, bias=True
    ),
    "GPT-BigCode, eager": _gpt("GPTBigCode", "GPTBigCodeForCausalLM", "eager", tie_word_embeddings=False),
    "Persimmon, eager": _causal("Persimmon", "eager", intermediate_size=6, **MANY),
    "Cohere": _causal("Cohere", num_key_value_heads=1, intermediate_size=6, use_qk_norm=False, **MANY),
    "BERT": _language("BertConfig", "BertForMaskedLM", {**SIZES, "type_vocab_size": 1}, {}),
    "BERT, tied": _language(
        "BertConfig", "BertForMaskedLM", {**SIZES, "type_vocab_size": 1, "tie_word_embeddings": True}, {}
    ),
    "encoder, post-norm": _encoder(norm_first=False),
    "encoder, pre-norm": _encoder(norm_first=True),
    "LoRA on a frozen Llama": _adapted,
}
"""Name → how to make the model and its example inputs."""
