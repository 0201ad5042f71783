"""The two models that are trained, and the parts that they share."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import InternVLForConditionalGeneration

from tools.internvl_reference.native_checkpoint import native_config
from tools.tiny_internvl import tokenizer as tokenizers_
from tools.tiny_internvl.chat_format import chat_config

from ..scene import CELL, COLOURS, TILE

PATCH = CELL // 2
TOKENS_PER_TILE = (TILE // CELL) ** 2
MAX_TILES = 12
MAX_LENGTH = 1024
HEAD_DIM = 32
_LINES = (
    *("system", "user", "assistant", "What is the code on the sign?", "Which code does the sign show?"),
    "How many signs are there?",
    *(f"the {colour}" for colour in COLOURS),  # with the space in front
)
TEXT = "\n".join(_LINES)


@dataclass(frozen=True)
class Size:
    name: str
    vit_hidden: int
    vit_layers: int
    hidden: int
    layers: int
    kv_heads: int
    intermediate: int


SMALL = Size("small", vit_hidden=96, vit_layers=3, hidden=128, layers=3, kv_heads=2, intermediate=384)
LARGE = Size("large", vit_hidden=160, vit_layers=4, hidden=192, layers=4, kv_heads=3, intermediate=512)
SIZES = {size.name: size for size in (SMALL, LARGE)}


def tokenizer() -> Tokenizer:
    """Bytes, the words of the questions and answers as one token each, and digits one by one."""
    return tokenizers_.train(TEXT, merges=None)


def config(size: Size, tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json` of a model, InternVL's chat format."""
    return chat_config(
        image_size=TILE,
        patch_size=PATCH,
        max_dynamic_patch=MAX_TILES,
        dtype="float32",
        vision={
            "hidden_size": size.vit_hidden,
            "intermediate_size": 3 * size.vit_hidden,
            "norm_type": "layer_norm",
            "num_attention_heads": size.vit_hidden // HEAD_DIM,
            "num_hidden_layers": size.vit_layers,
            "qk_normalization": False,
            "qkv_bias": True,
        },
        decoder={
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "attention_dropout": 0.0,
            "bos_token_id": None,
            "eos_token_id": tokenizer.token_to_id(tokenizers_.IM_END),
            "pad_token_id": tokenizer.token_to_id(tokenizers_.PAD),
            "hidden_size": size.hidden,
            "intermediate_size": size.intermediate,
            "max_position_embeddings": MAX_LENGTH,
            "num_attention_heads": size.hidden // HEAD_DIM,
            "num_hidden_layers": size.layers,
            "num_key_value_heads": size.kv_heads,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "use_cache": True,
            "vocab_size": tokenizer.get_vocab_size(),
        },
    )


def new(size: Size, tokenizer: Tokenizer) -> InternVLForConditionalGeneration:
    """An untrained model, transformers' own class, float32."""
    chat = config(size, tokenizer)
    chat["llm_config"]["tie_word_embeddings"] = True  # here alone: see export.py
    native = native_config(chat, tokenizer.token_to_id(tokenizers_.IMG_CONTEXT))
    native._attn_implementation = "sdpa"
    model = InternVLForConditionalGeneration(native)
    for part in (model.model.language_model, model.model.multi_modal_projector):
        for weight in (weight for weight in part.parameters() if weight.ndim == 2):
            # transformers' 0.02 is meant for wide models: at this width attention would start out flat,
            # and a decoder with flat attention stays at the answer prior for a long time.
            weight.data.normal_(0, weight.shape[1] ** -0.5)
    for layer in model.model.vision_tower.encoder.layer:
        layer.lambda_1.data.fill_(0.5)
        layer.lambda_2.data.fill_(0.5)
    model.model.vision_tower.embeddings.position_embeddings.data[0, 1:] = _places(size.vit_hidden)
    return model


def _places(width: int) -> torch.Tensor:
    """Sines and cosines of row and column, [patches, width]: neighbours are alike from the start."""
    side = TILE // PATCH
    rates = 2 * math.pi / side * torch.arange(1, width // 4 + 1) / (width // 4) * side / 4
    angles = torch.arange(side)[:, None] * rates
    of_line = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, width / 2]
    rows, columns = of_line.repeat_interleave(side, 0), of_line.repeat(side, 1)
    return 0.4 * torch.cat([rows, columns], dim=1)
