"""LLaVA-OneVision (https://huggingface.co/llava-hf/llava-onevision-qwen2-0.5b-ov-hf): tiles, and newlines."""

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
)

from tools.tiny_internvl import TinyShape
from tools.tiny_internvl.tokenizer import IM_END, IM_START, PAD

from .checkpoint import TinyFamily, TokenIds, text_config

IMAGE, VIDEO = "<image>", "<video>"
# As in the published template, a message's images come first and nothing separates them.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% if message['content'] is string %}{{ '\\n' + message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'].startswith('image') %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'].startswith('video') %}{{ '<video>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ '\\n' + part['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PATCH, SIDE = 14, 60
"""A tile's side is no multiple of a patch's, as with 384 and 14: 4 x 4 patches see 56 of 60 pixels."""
# Of all sizes 1153 x 944 has the most tokens, as with the published pinpoints: vLLM takes that for granted.
PINPOINTS = [
    [SIDE * rows, SIDE * columns]
    for rows in range(1, 5)
    for columns in range(1, 5)
    if columns > rows or 1 in (rows, columns)
]


def config(shape: TinyShape, tokens: TokenIds) -> LlavaOnevisionConfig:
    return LlavaOnevisionConfig(
        text_config={**text_config(shape, tokens), "model_type": "qwen2", "rope_theta": 1e6},
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": shape.vit_hidden,
            "image_size": SIDE,
            "intermediate_size": 2 * shape.vit_hidden,
            "num_attention_heads": shape.vit_heads,
            "num_hidden_layers": shape.vit_layers,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        image_grid_pinpoints=PINPOINTS,
        image_token_index=tokens[IMAGE],
        video_token_index=tokens[VIDEO],
        tie_word_embeddings=False,
    )


def processor(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionProcessor:
    size = {"height": SIDE, "width": SIDE}
    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=PINPOINTS),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def published(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """vLLM 0.32 loads a SigLIP tower under its older names only."""
    return {name.replace("model.vision_tower.", "model.vision_tower.vision_model."): tensor}


FAMILY = TinyFamily(
    "llava_onevision",
    LlavaOnevisionForConditionalGeneration,
    (PAD, IM_START, IM_END, IMAGE, VIDEO),
    CHAT_TEMPLATE,
    config,
    processor,
    published=published,
)
