"""Qwen3-VL with a mixture of experts (https://huggingface.co/Qwen/Qwen3-VL-30B-A3B-Instruct)."""

import torch
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from tools.tiny_internvl import TinyShape

from . import qwen3_vl
from .checkpoint import TinyFamily, TokenIds

EXPERTS, USED = 6, 2


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
            "num_experts": EXPERTS,
            "num_experts_per_tok": USED,
            "moe_intermediate_size": shape.intermediate // 2
            + 32,  # not the hidden size: loaders tell by shapes
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
            "tie_word_embeddings": False,
        },
        vision_config=vision,
        tie_word_embeddings=False,
        image_token_id=dense.image_token_id,
        video_token_id=dense.video_token_id,
        vision_start_token_id=dense.vision_start_token_id,
        vision_end_token_id=dense.vision_end_token_id,
    )


def published_tensor(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Published checkpoints have experts' matrices as [experts, inputs, outputs]."""
    return tensor.transpose(1, 2) if ".mlp.experts." in name else tensor


FAMILY = TinyFamily(
    "qwen3_vl_moe",
    Qwen3VLMoeForConditionalGeneration,
    qwen3_vl.SPECIAL_TOKENS,
    qwen3_vl.CHAT_TEMPLATE,
    config,
    qwen3_vl.processor,
    published_tensor=published_tensor,
)
