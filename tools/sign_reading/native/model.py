"""The model, and what of the small InternVL reader it starts from."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from tools.tiny_families import qwen2_vl
from tools.tiny_internvl import tokenizer as tokenizers_

from ..training.sizes import HEAD_DIM, MAX_LENGTH, PATCH, SMALL, TEXT
from ..training.vision import MEAN, STD

MOST_TOKENS = 256
"""Visual tokens of the largest image; larger ones are shrunk."""
_TOKEN = (2 * PATCH) ** 2
_FREQUENCIES = HEAD_DIM // 4  # of the encoder's rotary embedding, for rows and for columns alike

Tensors = Mapping[str, torch.Tensor]


def tokenizer() -> Tokenizer:
    """The words of the InternVL readers, Qwen2-VL's special tokens."""
    return tokenizers_.train(TEXT, merges=None, special=qwen2_vl.SPECIAL_TOKENS)


def config(tokenizer: Tokenizer) -> Qwen2VLConfig:
    tokens = tokenizer.get_vocab()
    half = HEAD_DIM // 2
    return Qwen2VLConfig(
        architectures=["Qwen2VLForConditionalGeneration"],
        dtype="float32",
        text_config={
            "attention_dropout": 0.0,
            "bos_token_id": None,
            "eos_token_id": tokens[tokenizers_.IM_END],
            "pad_token_id": tokens[tokenizers_.PAD],
            "hidden_size": SMALL.hidden,
            "intermediate_size": SMALL.intermediate,
            "max_position_embeddings": MAX_LENGTH,
            "num_attention_heads": SMALL.hidden // HEAD_DIM,
            "num_hidden_layers": SMALL.layers,
            "num_key_value_heads": SMALL.kv_heads,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "rope_scaling": {"type": "mrope", "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8]},
            "tie_word_embeddings": False,
            "vocab_size": len(tokens),
        },
        vision_config={
            "depth": SMALL.vit_layers,
            "embed_dim": SMALL.vit_hidden,
            "hidden_size": SMALL.hidden,
            "mlp_ratio": 3,
            "num_heads": SMALL.vit_hidden // HEAD_DIM,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
        },
        tie_word_embeddings=False,
        **qwen2_vl.token_ids(tokens),
    )


def processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    """With the InternVL readers' means and deviations, so that their patch embedding is worth having."""
    arguments = {
        "patch_size": PATCH,
        "merge_size": 2,
        "image_mean": MEAN.flatten().tolist(),
        "image_std": STD.flatten().tolist(),
        "size": {"shortest_edge": 4 * _TOKEN, "longest_edge": MOST_TOKENS * _TOKEN},
    }
    images, videos = Qwen2VLImageProcessor(**arguments), Qwen2VLVideoProcessor(**arguments)
    return Qwen2VLProcessor(images, tokenizer, videos, qwen2_vl.CHAT_TEMPLATE)


def new(tokenizer: Tokenizer, start: Path) -> Qwen2VLForConditionalGeneration:
    """A model that starts from the checkpoint ``start``, an InternVL in chat format; float32.

    The decoder is taken whole. Of the vision encoder everything is taken but positions, which are learnt
    there and rotary here: queries and keys start half as loud, with a bias that makes patches look around.
    The connector's first matrix is wider here; what is new in it starts small.
    """
    made = config(tokenizer)
    made._attn_implementation = "sdpa"
    model = Qwen2VLForConditionalGeneration(made)
    old = {name: tensor.float() for name, tensor in load_file(start / "model.safetensors").items()}
    old_ids = Tokenizer.from_file(str(start / "tokenizer.json")).get_vocab()
    found = dict(model.state_dict())
    found |= _decoder(old, tokenizer.get_vocab(), old_ids, found)
    for layer in range(SMALL.vit_layers):
        found |= _layer(old, layer)
    found |= _ends(old, found)
    model.load_state_dict(found)
    return model


#: What a special token means, in InternVL's words.
_SAME = {qwen2_vl.VISION_START: "<img>", qwen2_vl.VISION_END: "</img>", qwen2_vl.IMAGE: "<IMG_CONTEXT>"}


def _decoder(
    old: Tensors, ids: Mapping[str, int], old_ids: Mapping[str, int], found: Tensors
) -> dict[str, torch.Tensor]:
    prefix = "language_model.model."
    taken = {
        "model.language_model." + name.removeprefix(prefix): tensor
        for name, tensor in old.items()
        if name.startswith(prefix)
    }
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        rows = found[name].clone()
        for piece, index in ids.items():
            if (before := old_ids.get(_SAME.get(piece, piece))) is not None:
                rows[index] = old[f"{prefix}embed_tokens.weight"][before]
        taken[name] = rows
    return taken


def _layer(old: Tensors, layer: int) -> dict[str, torch.Tensor]:
    before, after = f"vision_model.encoder.layers.{layer}.", f"model.visual.blocks.{layer}."
    scaled = {"attn.proj": old[before + "ls1"], "mlp.fc2": old[before + "ls2"]}
    taken = {}
    for name in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        weight, bias = old[f"{before}{name}.weight"], old[f"{before}{name}.bias"]
        if name in scaled:  # Qwen2-VL has no scale per channel behind a layer
            weight, bias = weight * scaled[name][:, None], bias * scaled[name]
        taken[f"{after}{name}.weight"], taken[f"{after}{name}.bias"] = weight, bias
    width = SMALL.vit_hidden
    taken[f"{after}attn.qkv.weight"][: 2 * width] *= 0.5
    nearby = _nearby().repeat(width // HEAD_DIM)
    taken[f"{after}attn.qkv.bias"][: 2 * width] = torch.cat([nearby, nearby])
    return taken


def _nearby() -> torch.Tensor:
    """A query and key [head dimension] whose product, both turned by their places, falls with distance.

    Rotary pairs are (i, i + half); the first quarter is turned by the row, the second by the column. The two
    fastest frequencies tell patches apart that are up to ten apart.
    """
    vector = torch.zeros(HEAD_DIM)
    for first in (0, _FREQUENCIES):
        vector[first : first + 2] = torch.tensor([3.0, 3.5])
    return vector


def _ends(old: Tensors, found: Tensors) -> dict[str, torch.Tensor]:
    """Patch embedding and connector. Both families order the four patches of a token row by row."""
    patch = old["vision_model.embeddings.patch_embedding.weight"]
    norm, norm_bias = old["mlp1.0.weight"], old["mlp1.0.bias"]
    first, second = found["model.visual.merger.mlp.0.weight"], found["model.visual.merger.mlp.2.weight"]
    rows = len(old["mlp1.1.weight"])
    weight, bias = first.clone(), found["model.visual.merger.mlp.0.bias"].clone()
    weight.normal_(0, weight.shape[1] ** -0.5)
    weight[:rows] = old["mlp1.1.weight"] * norm
    bias.zero_()
    bias[:rows] = old["mlp1.1.bias"] + old["mlp1.1.weight"] @ norm_bias
    out = 0.1 * torch.randn_like(second) * second.shape[1] ** -0.5
    out[:, :rows] = old["mlp1.3.weight"]
    return {
        # Two equal frames make an image.
        "model.visual.patch_embed.proj.weight": patch[:, :, None].expand(-1, -1, 2, -1, -1) / 2,
        "model.visual.merger.mlp.0.weight": weight,
        "model.visual.merger.mlp.0.bias": bias,
        "model.visual.merger.mlp.2.weight": out,
        "model.visual.merger.mlp.2.bias": old["mlp1.3.bias"],
    }


def export(model: Qwen2VLForConditionalGeneration, tokenizer: Tokenizer, directory: Path) -> None:
    """Write the checkpoint into ``directory``. Weights are float16 on disk, which halves their size."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizers_.write(tokenizer, directory, MAX_LENGTH, qwen2_vl.CHAT_TEMPLATE)
    processor(PreTrainedTokenizerFast.from_pretrained(directory)).save_pretrained(directory)
    model.config.save_pretrained(directory)
    model.generation_config.eos_token_id = model.config.text_config.eos_token_id
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    model.generation_config.save_pretrained(directory)
    tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
