"""The decoders that InternVL's chat format comes with: how each config and its published tensors differ.

Weights are drawn under Llama's names, and published under each decoder's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .spec import TinySpec

Tensors = dict[str, torch.Tensor]


def _no_fields(spec: TinySpec) -> dict[str, Any]:
    return {}


def _as_they_are(layer: Tensors, spec: TinySpec) -> Tensors:
    return layer


@dataclass(frozen=True)
class Decoder:
    """One kind of decoder.

    remote_config: whether its config class is remote code.
    qkv_bias, qk_norm: whether its attention has biases, and norms of queries and keys.
    fields: of its config, beside those that all have.
    layer: from one layer's tensors under Llama's names, without ``model.layers.N.``, to the published ones.
    names: of other tensors, from Llama's to the published ones.
    """

    architecture: str
    model_type: str
    remote_config: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    fields: Callable[[TinySpec], dict[str, Any]] = _no_fields
    layer: Callable[[Tensors, TinySpec], Tensors] = _as_they_are
    names: Mapping[str, str] | None = None


def _internlm2_fields(spec: TinySpec) -> dict[str, Any]:
    # Up to max_position_embeddings, dynamic scaling is none.
    return {"bias": False, "rope_scaling": {"type": "dynamic", "factor": 2.0}}


def _internlm2_layer(layer: Tensors, spec: TinySpec) -> Tensors:
    """One fused projection: for every KV head its query heads, then its key, then its value."""
    parts = [layer[f"self_attn.{part}_proj.weight"] for part in "qkv"]
    groups = [part.view(spec.kv_heads, -1, spec.head_dim, spec.hidden) for part in parts]
    return {
        "attention.wqkv.weight": torch.cat(groups, dim=1).flatten(0, 2),
        "attention.wo.weight": layer["self_attn.o_proj.weight"],
        "feed_forward.w1.weight": layer["mlp.gate_proj.weight"],
        "feed_forward.w2.weight": layer["mlp.down_proj.weight"],
        "feed_forward.w3.weight": layer["mlp.up_proj.weight"],
        "attention_norm.weight": layer["input_layernorm.weight"],
        "ffn_norm.weight": layer["post_attention_layernorm.weight"],
    }


def _phi3_fields(spec: TinySpec) -> dict[str, Any]:
    pairs = range(spec.head_dim // 2)
    return {
        "original_max_position_embeddings": spec.original_context,
        "rope_scaling": {
            "type": "su",
            "short_factor": [1 + 0.05 * pair for pair in pairs],
            "long_factor": [1 + 0.5 * pair for pair in pairs],
        },
        "sliding_window": 262144,  # above every context: no window at all
    }


def _phi3_layer(layer: Tensors, spec: TinySpec) -> Tensors:
    fused = {
        "self_attn.qkv_proj.weight": [f"self_attn.{part}_proj.weight" for part in "qkv"],
        "mlp.gate_up_proj.weight": [f"mlp.{part}_proj.weight" for part in ("gate", "up")],
    }
    gone = {name for names in fused.values() for name in names}
    rest = {name: tensor for name, tensor in layer.items() if name not in gone}
    return rest | {name: torch.cat([layer[part] for part in parts]) for name, parts in fused.items()}


EXPERTS, USED = 6, 2


def _moe_fields(spec: TinySpec) -> dict[str, Any]:
    return {
        "head_dim": spec.head_dim,
        "num_experts": EXPERTS,
        "num_experts_per_tok": USED,
        "moe_intermediate_size": spec.intermediate // 2,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


_INTERNLM2_NAMES = {
    "model.embed_tokens.weight": "model.tok_embeddings.weight",
    "lm_head.weight": "output.weight",
}

DECODERS = {
    "internlm2": Decoder(
        "InternLM2ForCausalLM", "internlm2", remote_config=True,
        fields=_internlm2_fields, layer=_internlm2_layer, names=_INTERNLM2_NAMES,
    ),
    "llama": Decoder("LlamaForCausalLM", "llama"),
    "phi3": Decoder(
        "Phi3ForCausalLM", "phi3", remote_config=True, fields=_phi3_fields, layer=_phi3_layer
    ),
    "qwen2": Decoder("Qwen2ForCausalLM", "qwen2", qkv_bias=True),
    "qwen3_moe": Decoder("Qwen3MoeForCausalLM", "qwen3_moe", qk_norm=True, fields=_moe_fields),
    "qwen3": Decoder(
        "Qwen3ForCausalLM", "qwen3", qk_norm=True, fields=lambda spec: {"head_dim": spec.head_dim}
    ),
}  # fmt: skip


def published(tensors: Tensors, spec: TinySpec) -> Tensors:
    """A decoder's tensors, ``language_model.`` in front, under the names of its published checkpoints."""
    decoder, root = DECODERS[spec.decoder], "language_model."
    layers: dict[str, Tensors] = {}
    found: Tensors = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(root)
        if name.startswith("model.layers."):
            number, rest = name.removeprefix("model.layers.").split(".", 1)
            layers.setdefault(number, {})[rest] = tensor
        else:
            found[root + (decoder.names or {}).get(name, name)] = tensor
    for number, layer in layers.items():
        for name, tensor in decoder.layer(layer, spec).items():
            found[f"{root}model.layers.{number}.{name}"] = tensor
    return found
