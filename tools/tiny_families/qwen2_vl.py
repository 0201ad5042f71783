"""Qwen2-VL (https://huggingface.co/Qwen/Qwen2-VL-2B-Instruct): one visual token is 28 x 28 pixels."""

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tools.tiny_internvl import TinyShape
from tools.tiny_internvl.tokenizer import IM_END, IM_START, PAD

from .checkpoint import TinyFamily, TokenIds, text_config

VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (PAD, IM_START, IM_END, VISION_START, VISION_END, IMAGE, VIDEO)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'].startswith('image') %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'].startswith('video') %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PATCH, MERGE = 14, 2
MAX_TOKENS = 128
"""Visual tokens of the largest image or video frame pair; larger ones are shrunk."""


def size_limits(patch: int) -> dict[str, int]:
    """Pixels that an image has at least and at most once it is resized."""
    token = (patch * MERGE) ** 2
    return {"shortest_edge": 4 * token, "longest_edge": MAX_TOKENS * token}


def token_ids(tokens: TokenIds) -> dict[str, int]:
    return {
        "image_token_id": tokens[IMAGE],
        "video_token_id": tokens[VIDEO],
        "vision_start_token_id": tokens[VISION_START],
        "vision_end_token_id": tokens[VISION_END],
    }


def config(shape: TinyShape, tokens: TokenIds) -> Qwen2VLConfig:
    half = shape.head_dim // 2
    rope = {"type": "mrope", "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8]}
    return Qwen2VLConfig(
        text_config={**text_config(shape, tokens), "rope_theta": 1e6, "rope_scaling": rope},
        vision_config={
            "depth": shape.vit_layers,
            "embed_dim": shape.vit_hidden,
            "hidden_size": shape.hidden,
            "mlp_ratio": 2,
            "num_heads": shape.vit_heads,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
        },
        tie_word_embeddings=False,
        **token_ids(tokens),
    )


def processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    sizes = {"patch_size": PATCH, "merge_size": MERGE, "size": size_limits(PATCH)}
    return Qwen2VLProcessor(
        Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes), CHAT_TEMPLATE
    )


FAMILY = TinyFamily(
    "qwen2_vl", Qwen2VLForConditionalGeneration, SPECIAL_TOKENS, CHAT_TEMPLATE, config, processor
)
