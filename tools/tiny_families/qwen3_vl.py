"""Qwen3-VL (https://huggingface.co/Qwen/Qwen3-VL-2B-Instruct): DeepStack, interleaved M-RoPE, 32 x 32 pixels
a visual token."""

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tools.tiny_internvl import TinyShape

from .checkpoint import TinyFamily, TokenIds, text_config
from .qwen2_vl import CHAT_TEMPLATE, MERGE, SPECIAL_TOKENS, size_limits, token_ids

PATCH = 16
GRID = 8
"""Learnt position embeddings along a side of the tower's grid; others are interpolated."""


def config(shape: TinyShape, tokens: TokenIds) -> Qwen3VLConfig:
    half = shape.head_dim // 2
    sections = [half - 2 * (half * 5 // 16), half * 5 // 16, half * 5 // 16]
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": sections}
    text = {**text_config(shape, tokens), "head_dim": shape.head_dim}
    return Qwen3VLConfig(
        text_config={**text, "rope_theta": 5e6, "rope_scaling": rope},
        vision_config={
            # Every decoder layer but the last gets features from a tower layer before the last.
            "deepstack_visual_indexes": list(range(min(shape.vit_layers, shape.layers) - 1)),
            "depth": shape.vit_layers,
            "hidden_size": shape.vit_hidden,
            "intermediate_size": 2 * shape.vit_hidden,
            "num_heads": shape.vit_heads,
            "num_position_embeddings": GRID**2,
            "out_hidden_size": shape.hidden,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
        },
        tie_word_embeddings=False,
        **token_ids(tokens),
    )


def processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    common = {"patch_size": PATCH, "merge_size": MERGE, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    images = Qwen2VLImageProcessor(**common, size=size_limits(PATCH))
    # The limits of a video are on all of its frames together.
    limits = size_limits(PATCH)
    frames = {**limits, "longest_edge": 8 * limits["longest_edge"]}
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(**common, size=frames), CHAT_TEMPLATE)


FAMILY = TinyFamily(
    "qwen3_vl", Qwen3VLForConditionalGeneration, SPECIAL_TOKENS, CHAT_TEMPLATE, config, processor
)
