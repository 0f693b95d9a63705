"""Small encoders, encoder-decoders, and models of images and sound, one row each."""

from __future__ import annotations

from typing import Any

from tests.zoo.decoders import EAGER, IDS, USUAL
from tests.zoo.wrapper import VOCABULARY, Entry

PAIR = ("input_ids", "decoder_input_ids")
SEQUENCES: dict[str, Any] = {
    **IDS,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 16,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}
IMAGE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 4,
    "num_labels": 5,
}
PIXELS = ("pixel_values",)
T5 = {**IDS, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}


def _masked(name: str, model: str | None = None, attention: tuple[str, ...] = ("sdpa", "eager"), **more: Any) -> Entry:
    return Entry(f"{name}Config", model or f"{name}ForMaskedLM", {**USUAL, **more}, attention=attention)


ENCODERS: dict[str, Entry] = {
    "bert": _masked("Bert"),
    "bert untied": _masked("Bert", tie_word_embeddings=False),
    "bert classifier": _masked("Bert", "BertForSequenceClassification", num_labels=5),
    "roberta": _masked("Roberta"),
    "distilbert": Entry(
        "DistilBertConfig",
        "DistilBertForMaskedLM",
        {**IDS, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 12},
    ),
    "electra": _masked("Electra", embedding_size=8),
    "albert": _masked("Albert", embedding_size=8),
    "deberta_v2": _masked(
        "DebertaV2",
        attention=EAGER,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=4,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
    ),
    "mpnet": _masked("MPNet", attention=EAGER),
    "modernbert": _masked("ModernBert", global_attn_every_n_layers=2, local_attention=4),
    "xlnet": Entry(
        "XLNetConfig",
        "XLNetLMHeadModel",
        {**IDS, "d_model": 16, "n_layer": 2, "n_head": 4, "d_inner": 24},
        attention=EAGER,
    ),
    "t5": Entry("T5Config", "T5ForConditionalGeneration", T5, PAIR, fixed={"use_cache": False}),
    "t5 gated": Entry(
        "T5Config",
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        PAIR,
        fixed={"use_cache": False},
    ),
    "bart": Entry("BartConfig", "BartForConditionalGeneration", SEQUENCES, PAIR, fixed={"use_cache": False}),
    "pegasus": Entry("PegasusConfig", "PegasusForConditionalGeneration", SEQUENCES, PAIR, fixed={"use_cache": False}),
    "marian": Entry("MarianConfig", "MarianMTModel", SEQUENCES, PAIR, fixed={"use_cache": False}),
    "whisper": Entry(
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        {**SEQUENCES, "num_mel_bins": 6, "max_source_positions": 8, "max_target_positions": 12},
        ("input_features", "decoder_input_ids"),
        fixed={"use_cache": False},
        shape=(6, 16),
    ),
    "wav2vec2": Entry(
        "Wav2Vec2Config",
        "Wav2Vec2ForCTC",
        {
            **USUAL,
            "conv_dim": (8, 8),
            "conv_kernel": (3, 3),
            "conv_stride": (2, 2),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            "mask_time_prob": 0.0,
            "layerdrop": 0.0,
        },
        ("input_values",),
        shape=(40,),
    ),
    "vit": Entry("ViTConfig", "ViTForImageClassification", IMAGE, PIXELS),
    "deit": Entry("DeiTConfig", "DeiTForImageClassificationWithTeacher", IMAGE, PIXELS),
    "dinov2": Entry("Dinov2Config", "Dinov2ForImageClassification", {**IMAGE, "mlp_ratio": 2}, PIXELS),
    "beit": Entry("BeitConfig", "BeitForImageClassification", {**IMAGE, "use_relative_position_bias": True}, PIXELS),
    "swin": Entry(
        "SwinConfig",
        "SwinForImageClassification",
        {
            "embed_dim": 8,
            "depths": [2, 1],
            "num_heads": [2, 4],
            "window_size": 2,
            "image_size": 8,
            "patch_size": 2,
            "num_labels": 5,
            "drop_path_rate": 0.0,
        },
        PIXELS,
    ),
    "convnext": Entry(
        "ConvNextConfig",
        "ConvNextForImageClassification",
        {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2, "num_labels": 5},
        PIXELS,
        attention=EAGER,
        shape=(3, 16, 16),
    ),
    "siglip vision": Entry("SiglipVisionConfig", "SiglipVisionModel", IMAGE, PIXELS),
    "clip vision": Entry("CLIPVisionConfig", "CLIPVisionModel", IMAGE, PIXELS),
    "clip text": Entry("CLIPTextConfig", "CLIPTextModel", {**USUAL, "eos_token_id": VOCABULARY - 1}),
    "clip": Entry(
        "CLIPConfig",
        "CLIPModel",
        {
            "text_config": {**USUAL, "eos_token_id": VOCABULARY - 1},
            "vision_config": IMAGE,
            "projection_dim": 8,
        },
        ("input_ids", "pixel_values"),
    ),
}
