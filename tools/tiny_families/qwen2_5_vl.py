"""Qwen2.5-VL (https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct): as Qwen2-VL, with windows in the tower."""

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from tools.tiny_internvl import TinyShape

from .checkpoint import TinyFamily, TokenIds, text_config
from .qwen2_vl import CHAT_TEMPLATE, MERGE, PATCH, SPECIAL_TOKENS, size_limits, token_ids


def config(shape: TinyShape, tokens: TokenIds) -> Qwen2_5_VLConfig:
    half = shape.head_dim // 2
    rope = {"type": "mrope", "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8]}
    return Qwen2_5_VLConfig(
        text_config={**text_config(shape, tokens), "rope_theta": 1e6, "rope_scaling": rope},
        vision_config={
            "depth": shape.vit_layers,
            "fullatt_block_indexes": [shape.vit_layers - 1],
            "hidden_size": shape.vit_hidden,
            "intermediate_size": 2 * shape.vit_hidden,
            "num_heads": shape.vit_heads,
            "out_hidden_size": shape.hidden,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "window_size": 4 * PATCH * MERGE,
        },
        tie_word_embeddings=False,
        **token_ids(tokens),
    )


def processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    sizes = {"patch_size": PATCH, "merge_size": MERGE, "size": size_limits(PATCH)}
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes), CHAT_TEMPLATE
    )


FAMILY = TinyFamily(
    "qwen2_5_vl", Qwen2_5_VLForConditionalGeneration, SPECIAL_TOKENS, CHAT_TEMPLATE, config, processor
)
