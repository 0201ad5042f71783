"""Qwen3.5 with a mixture of experts (https://huggingface.co/Qwen/Qwen3.5-35B-A3B)."""

from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration

from tools.tiny_internvl import TinyShape

from . import qwen3_5, qwen3_vl
from .checkpoint import TinyFamily, TokenIds
from .qwen2_vl import CHAT_TEMPLATE, SPECIAL_TOKENS, token_ids
from .qwen3_vl_moe import EXPERTS, USED


def config(shape: TinyShape, tokens: TokenIds) -> Qwen3_5MoeConfig:
    text = qwen3_5.text(shape, tokens)
    text.pop("intermediate_size")
    return Qwen3_5MoeConfig(
        text_config={
            **text,
            "num_experts": EXPERTS,
            "num_experts_per_tok": USED,
            "moe_intermediate_size": shape.intermediate // 4,
            "shared_expert_intermediate_size": shape.intermediate // 4,
        },
        vision_config=qwen3_5.vision(shape),
        tie_word_embeddings=False,
        **token_ids(tokens),
    )


FAMILY = TinyFamily(
    "qwen3_5_moe",
    Qwen3_5MoeForConditionalGeneration,
    SPECIAL_TOKENS,
    CHAT_TEMPLATE,
    config,
    qwen3_vl.processor,
)
