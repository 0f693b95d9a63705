"""Small causal language models, one row each."""

from __future__ import annotations

from typing import Any

from tests.zoo.wrapper import VOCABULARY, Entry

CAUSAL = {"use_cache": False}
IDS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}

USUAL: dict[str, Any] = {
    **IDS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
"""What most configurations call their sizes; head size 4."""

GROUPED = {**USUAL, "num_key_value_heads": 2}
EAGER = ("eager",)
EXPERTS = {"num_experts_per_tok": 2}  # computed by grouped products, as is the default


def _usual(name: str, grouped: bool = True, attention: tuple[str, ...] = ("sdpa", "eager"), **more: Any) -> Entry:
    settings = {**(GROUPED if grouped else USUAL), **more}
    return Entry(f"{name}Config", f"{name}ForCausalLM", settings, attention=attention, fixed=CAUSAL)


DECODERS: dict[str, Entry] = {
    "gpt2": Entry(
        "GPT2Config",
        "GPT2LMHeadModel",
        {**IDS, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 12, "n_inner": 24},
        fixed=CAUSAL,
    ),
    "gpt2 untied": Entry(
        "GPT2Config",
        "GPT2LMHeadModel",
        {**IDS, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 12, "tie_word_embeddings": False},
        fixed=CAUSAL,
    ),
    "gpt_neo": Entry(
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        {
            **IDS,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "intermediate_size": 24,
            "max_position_embeddings": 12,
        },
        attention=EAGER,
        fixed=CAUSAL,
    ),
    "gptj": Entry(
        "GPTJConfig",
        "GPTJForCausalLM",
        {**IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 12, "rotary_dim": 4},
        fixed=CAUSAL,
    ),
    "gpt_neox": _usual(
        "GPTNeoX",
        grouped=False,
        hidden_size=32,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    ),
    "gpt_neox sequential": _usual("GPTNeoX", grouped=False, hidden_size=32, use_parallel_residual=False),
    "opt": _usual("OPT", grouped=False, ffn_dim=24, word_embed_proj_dim=16),
    "opt projected": _usual("OPT", grouped=False, ffn_dim=24, word_embed_proj_dim=8, do_layer_norm_before=False),
    "bloom": Entry(
        "BloomConfig",
        "BloomForCausalLM",
        {**IDS, "hidden_size": 16, "n_layer": 2, "n_head": 4},
        attention=EAGER,
        fixed=CAUSAL,
    ),
    "falcon": _usual("Falcon", grouped=False, new_decoder_architecture=False, multi_query=True),
    "falcon new": _usual("Falcon", grouped=False, new_decoder_architecture=True, num_kv_heads=2),
    "falcon alibi": _usual("Falcon", grouped=False, alibi=True, parallel_attn=False, multi_query=False, bias=True),
    "llama": _usual("Llama"),
    "llama tied": _usual("Llama", tie_word_embeddings=True),
    "llama biased": _usual("Llama", attention_bias=True, mlp_bias=True),
    "mistral": _usual("Mistral", sliding_window=4),
    "mixtral": _usual("Mixtral", num_local_experts=3, **EXPERTS),
    "mixtral batched": _usual("Mixtral", num_local_experts=3, experts_implementation="batched_mm", **EXPERTS),
    "qwen2": _usual("Qwen2"),
    "qwen2 tied": _usual("Qwen2", tie_word_embeddings=True),
    "qwen2_moe": _usual(
        "Qwen2Moe", num_experts=3, moe_intermediate_size=12, shared_expert_intermediate_size=12, **EXPERTS
    ),
    "qwen3": _usual("Qwen3", head_dim=8),
    "qwen3_moe": _usual("Qwen3Moe", num_experts=3, moe_intermediate_size=12, head_dim=8, **EXPERTS),
    "gemma": _usual("Gemma", head_dim=8),
    "gemma2": _usual("Gemma2", attention=EAGER, head_dim=8, query_pre_attn_scalar=8, sliding_window=4),
    "gemma3": Entry(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4},
        fixed=CAUSAL,
    ),
    "phi": _usual("Phi", grouped=False, hidden_size=32),
    "phi3": _usual("Phi3"),
    "stablelm": _usual("StableLm", hidden_size=32, use_qkv_bias=True, qk_layernorm=True),
    "olmo": _usual("Olmo"),
    "olmo2": _usual("Olmo2"),
    "olmoe": _usual("Olmoe", num_experts=3, **EXPERTS),
    "cohere": _usual("Cohere", use_qk_norm=True),
    "cohere2": _usual("Cohere2", sliding_window=4),
    "starcoder2": _usual("Starcoder2"),
    "granite": _usual("Granite", attention_multiplier=0.3, residual_multiplier=0.7, logits_scaling=2.0),
    "smollm3": _usual("SmolLM3"),
    "glm4": _usual("Glm4", head_dim=8),
    "nemotron": _usual("Nemotron"),
    "persimmon": _usual("Persimmon", grouped=False, hidden_size=32),
    "deepseek_v3": _usual(
        "DeepseekV3",
        grouped=False,
        num_key_value_heads=4,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        moe_intermediate_size=12,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=4,
        **EXPERTS,
    ),
    "gpt_oss": _usual("GptOss", attention=EAGER, head_dim=8, num_local_experts=3, sliding_window=4, **EXPERTS),
    "mpt": Entry(
        "MptConfig",
        "MptForCausalLM",
        {**IDS, "d_model": 16, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 12},
        attention=EAGER,
        fixed=CAUSAL,
    ),
    "codegen": Entry(
        "CodeGenConfig",
        "CodeGenForCausalLM",
        {**IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 12, "rotary_dim": 4},
        fixed=CAUSAL,
    ),
    "gpt_bigcode": Entry(
        "GPTBigCodeConfig",
        "GPTBigCodeForCausalLM",
        {**IDS, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 12, "n_inner": 24},
        fixed=CAUSAL,
    ),
    "mamba": Entry(
        "MambaConfig",
        "MambaForCausalLM",
        {**IDS, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "expand": 2, "time_step_rank": 4},
        attention=EAGER,
        fixed=CAUSAL,
    ),
    "mamba2": Entry(
        "Mamba2Config",
        "Mamba2ForCausalLM",
        {
            **IDS,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "state_size": 4,
            "num_heads": 4,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 4,
        },
        attention=EAGER,
        fixed=CAUSAL,
    ),
    "rwkv": Entry(
        "RwkvConfig",
        "RwkvForCausalLM",
        {**IDS, "hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16, "intermediate_size": 24},
        attention=EAGER,
        fixed=CAUSAL,
    ),
    "recurrent_gemma": _usual("RecurrentGemma", lru_width=16, attention_window_size=4, num_hidden_layers=3, head_dim=4),
}
