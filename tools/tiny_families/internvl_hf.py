"""InternVL in transformers' own format (https://huggingface.co/OpenGVLab/InternVL3-2B-hf)."""

import json
from dataclasses import replace
from pathlib import Path

from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
)

from tools.tiny_internvl import TinyShape
from tools.tiny_internvl.tokenizer import IM_END, IM_START, IMG_CONTEXT, IMG_END, IMG_START, PAD

from .checkpoint import LARGE, SMALL, TinyFamily, TokenIds, build, text_config
from .qwen3_vl_moe import experts_config, one_by_one

VIDEO = "<video>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'].startswith('image') %}{{ '<IMG_CONTEXT>\\n' }}"
    "{% elif part['type'].startswith('video') %}{{ '<video>\\n' }}"
    "{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
PATCH, SIDE = 14, 112
TOKENS_PER_TILE = (SIDE // PATCH) ** 2 // 4
MAX_TILES = 6


def config(shape: TinyShape, tokens: TokenIds) -> InternVLConfig:
    return InternVLConfig(
        text_config={**text_config(shape, tokens), "model_type": "qwen2", "rope_theta": 1e6},
        vision_config={
            "attention_bias": True,
            "hidden_size": shape.vit_hidden,
            "image_size": SIDE,
            "intermediate_size": 2 * shape.vit_hidden,
            "num_attention_heads": shape.vit_heads,
            "num_hidden_layers": shape.vit_layers,
            "patch_size": PATCH,
        },
        image_token_id=tokens[IMG_CONTEXT],
        image_seq_length=TOKENS_PER_TILE,
        tie_word_embeddings=False,
    )


def config_intern_s1(shape: TinyShape, tokens: TokenIds) -> InternVLConfig:
    """Intern-S1's decoder is Qwen3's mixture of experts (https://huggingface.co/internlm/Intern-S1)."""
    made = config(shape, tokens)
    text = {**text_config(shape, tokens), "model_type": "qwen3_moe", "rope_theta": 1e6}
    text |= {"head_dim": shape.head_dim, **experts_config(shape)}
    return InternVLConfig(**{**made.to_dict(), "text_config": text})


def build_intern_s1(directory: Path) -> tuple[Path, Path]:
    """(small, large): Intern-S1, guided by a dense model of InternVL's format. vLLM has one class for
    both, told apart by the architecture's name; the published config class is not transformers'."""
    small = build(FAMILY, replace(SMALL, name="small-interns1"), directory / "small")
    family = replace(FAMILY, name="interns1", config=config_intern_s1, published=one_by_one)
    large = build(family, replace(LARGE, name="large-interns1"), directory / "large")
    path = large / "config.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps({**made, "architectures": ["InternS1ForConditionalGeneration"]}))
    return small, large


def processor(tokenizer: PreTrainedTokenizerFast) -> InternVLProcessor:
    size = {"height": SIDE, "width": SIDE}
    return InternVLProcessor(
        GotOcr2ImageProcessor(size=size, max_patches=MAX_TILES, crop_to_patches=True),
        tokenizer,
        InternVLVideoProcessor(size=size),
        image_seq_length=TOKENS_PER_TILE,
        chat_template=CHAT_TEMPLATE,
    )


FAMILY = TinyFamily(
    "internvl_hf",
    InternVLForConditionalGeneration,
    (PAD, IM_START, IM_END, IMG_START, IMG_END, IMG_CONTEXT, VIDEO),
    CHAT_TEMPLATE,
    config,
    processor,
    named_tokens={
        "start_image_token": IMG_START,
        "end_image_token": IMG_END,
        "context_image_token": IMG_CONTEXT,
        "video_token": VIDEO,
    },
)
