"""Qwen3.5 and 3.6 (https://huggingface.co/Qwen/Qwen3.5-27B): three layers of a gated delta net to one of
attention, no DeepStack, a quarter of a head rotated."""

from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

from tools.tiny_internvl import TinyShape

from . import qwen3_vl
from .checkpoint import TinyFamily, TokenIds, text_config
from .qwen2_vl import CHAT_TEMPLATE, MERGE, SPECIAL_TOKENS, token_ids
from .qwen3_vl import GRID, PATCH

HEAD = 64  # a quarter of it, half of that: 8 angles
LAYERS = 8  # two of them have attention


def text(shape: TinyShape, tokens: TokenIds) -> dict:
    half = HEAD // 4 // 2
    sections = [half - 2 * (half * 5 // 16), half * 5 // 16, half * 5 // 16]
    rope = {
        "rope_type": "default",
        "mrope_interleaved": True,
        "mrope_section": sections,
        "rope_theta": 1e7,
        "partial_rotary_factor": 0.25,
    }
    return {
        **text_config(shape, tokens),
        "num_hidden_layers": LAYERS,
        "layer_types": ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(LAYERS)],
        "head_dim": HEAD,
        "num_attention_heads": shape.heads,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "rope_parameters": rope,
        "mamba_ssm_dtype": "float32",
    }


def vision(shape: TinyShape) -> dict:
    return {
        "depth": shape.vit_layers,
        "hidden_size": shape.vit_hidden,
        "intermediate_size": 2 * shape.vit_hidden,
        "num_heads": shape.vit_heads,
        "num_position_embeddings": GRID**2,
        "out_hidden_size": shape.hidden,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "deepstack_visual_indexes": [],
    }


def config(shape: TinyShape, tokens: TokenIds) -> Qwen3_5Config:
    return Qwen3_5Config(
        text_config=text(shape, tokens),
        vision_config=vision(shape),
        tie_word_embeddings=False,
        **token_ids(tokens),
    )


FAMILY = TinyFamily(
    "qwen3_5", Qwen3_5ForConditionalGeneration, SPECIAL_TOKENS, CHAT_TEMPLATE, config, qwen3_vl.processor
)
