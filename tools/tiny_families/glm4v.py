"""GLM-4.1V (https://huggingface.co/zai-org/GLM-4.1V-9B-Thinking): half of a head is rotated, and the frames
of a video are marked in the prompt."""

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    PreTrainedTokenizerFast,
)

from tools.tiny_internvl import TinyShape
from tools.tiny_internvl.tokenizer import IM_END, IM_START, PAD

from .checkpoint import TinyFamily, TokenIds, text_config
from .qwen2_vl import MERGE, PATCH, size_limits

BOI, EOI, BOV, EOV = "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"
IMAGE, VIDEO = "<|image|>", "<|video|>"
#: The config's names of tokens.
TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "image_start_token_id": BOI,
    "image_end_token_id": EOI,
    "video_start_token_id": BOV,
    "video_end_token_id": EOV,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'].startswith('image') %}{{ '<|begin_of_image|><|image|><|end_of_image|>' }}"
    "{% elif part['type'].startswith('video') %}{{ '<|begin_of_video|><|video|><|end_of_video|>' }}"
    "{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def config(shape: TinyShape, tokens: TokenIds) -> Glm4vConfig:
    half = shape.head_dim // 4
    rope = {
        "rope_type": "default",
        "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8],
        "rope_theta": 1e4,
        "partial_rotary_factor": 0.5,
    }
    return Glm4vConfig(
        text_config={**text_config(shape, tokens), "rope_parameters": rope, "attention_bias": True},
        vision_config={
            "depth": shape.vit_layers,
            "hidden_size": shape.vit_hidden,
            "intermediate_size": 2 * shape.vit_hidden,
            "num_heads": shape.vit_heads,
            "out_hidden_size": shape.hidden,
            "patch_size": PATCH,
            "image_size": 8 * PATCH,
            "spatial_merge_size": MERGE,
        },
        tie_word_embeddings=False,
        **{name: tokens[token] for name, token in TOKENS.items()},
    )


def processor(tokenizer: PreTrainedTokenizerFast) -> Glm4vProcessor:
    limits = {name: 2 * value for name, value in size_limits(PATCH).items()}  # of two frames
    sizes = {"patch_size": PATCH, "merge_size": MERGE, "size": limits}
    frames = {**sizes, "size": {**limits, "longest_edge": 8 * limits["longest_edge"]}}
    return Glm4vProcessor(
        Glm4vImageProcessor(**sizes), tokenizer, Glm4vVideoProcessor(**frames), CHAT_TEMPLATE
    )


FAMILY = TinyFamily(
    "glm4v",
    Glm4vForConditionalGeneration,
    (PAD, IM_START, IM_END, BOI, EOI, BOV, EOV, IMAGE, VIDEO),
    CHAT_TEMPLATE,
    config,
    processor,
)
