"""Qwen3-VL with a mixture of experts (https://huggingface.co/Qwen/Qwen3-VL-30B-A3B-Instruct)."""

import torch
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from tools.tiny_internvl import TinyShape

from . import qwen3_vl
from .checkpoint import TinyFamily, TokenIds

EXPERTS, USED = 4, 2


def experts_config(shape: TinyShape) -> dict:
    """Fields of a decoder that is a mixture of experts in every layer, all that vLLM reads."""
    return {
        "num_experts": EXPERTS,
        "num_experts_per_tok": USED,
        # Not the hidden size: transformers tells by their shapes whether experts are transposed.
        "moe_intermediate_size": shape.intermediate // 4 + 32,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    }


def config(shape: TinyShape, tokens: TokenIds) -> Qwen3VLMoeConfig:
    dense = qwen3_vl.config(shape, tokens)
    text = dense.text_config.to_dict()
    for key in ("model_type", "architectures", "dtype"):
        text.pop(key, None)
    vision = dense.vision_config.to_dict()
    vision.pop("model_type", None)
    return Qwen3VLMoeConfig(
        text_config={
            **text,
            **experts_config(shape),
            "tie_word_embeddings": False,
        },
        vision_config=vision,
        tie_word_embeddings=False,
        image_token_id=dense.image_token_id,
        video_token_id=dense.video_token_id,
        vision_start_token_id=dense.vision_start_token_id,
        vision_end_token_id=dense.vision_end_token_id,
    )


def transposed(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Published checkpoints have experts' matrices as [experts, inputs, outputs]."""
    return {name: tensor.transpose(1, 2).contiguous() if ".mlp.experts." in name else tensor}


def one_by_one(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Experts one by one, as decoders of text alone are published."""
    root, found, part = name.partition(".mlp.experts.")
    if not found:
        return {name: tensor}
    parts = {"down_proj": tensor}
    if part == "gate_up_proj":
        parts = dict(zip(("gate_proj", "up_proj"), tensor.chunk(2, dim=1), strict=True))
    return {
        f"{root}.mlp.experts.{expert}.{part}.weight": matrix.contiguous()
        for part, matrices in parts.items()
        for expert, matrix in enumerate(matrices)
    }


FAMILY = TinyFamily(
    "qwen3_vl_moe",
    Qwen3VLMoeForConditionalGeneration,
    qwen3_vl.SPECIAL_TOKENS,
    qwen3_vl.CHAT_TEMPLATE,
    config,
    qwen3_vl.processor,
    published=transposed,
)
