"""Small decoders of the package ``transformers``, from their configurations and with random weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gaugefix.demo.corpus import VOCABULARY
from gaugefix.demo.extras import require


class HFDecoder(nn.Module):
    """``LlamaForCausalLM`` or ``GPT2LMHeadModel``: characters (batch, positions) → logits of the next one.

    Args:
        kind: llama or gpt2.
        width: channels of the residual stream.
        layers: blocks.
        heads: query heads.
        kv_heads: key and value heads; gpt2 has as many as query heads.
        context: the most positions.
    """

    def __init__(
        self, kind: Literal["llama", "gpt2"], width: int, layers: int, heads: int, kv_heads: int, context: int
    ) -> None:
        super().__init__()
        transformers = require("transformers", f"--model.architecture hf-{kind}")
        self.example_input_array = torch.arange(2 * context).reshape(2, context) % VOCABULARY
        shared = {"vocab_size": VOCABULARY, "attn_implementation": "sdpa", "use_cache": False}
        special = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}  # the corpus has none
        if kind == "llama":
            config = transformers.LlamaConfig(
                hidden_size=width,
                intermediate_size=round(8 * width / 3),
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=kv_heads,
                max_position_embeddings=context,
                **shared,
                **special,
            )
            self.model: nn.Module = transformers.LlamaForCausalLM(config)
        else:
            config = transformers.GPT2Config(
                n_embd=width,
                n_layer=layers,
                n_head=heads,
                n_positions=context,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                **shared,
                **special,
            )
            self.model = transformers.GPT2LMHeadModel(config)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens).logits
        return logits
