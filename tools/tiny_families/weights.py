"""Random weights for any of transformers' vision-language models, by the role of each parameter.

A role is read off a parameter's name: families name the same things a little differently, and a parameter
that no rule knows is an error. What the scales are for is told in ``tools/tiny_internvl/spec.py``.
"""

import re

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from tools.tiny_internvl import TinyShape
from tools.tiny_internvl.weights import Source, output_rows, text_embeddings

_NORM = re.compile(r"(norm\d?|layernorm(\d|_before|_after)?|layer_norm\d?|ln_q)\.weight$")
_BIAS_OF_ROUTER = ".mlp.gate.e_score_correction_bias"
_DECODER = re.compile(r"language_model\.layers\.\d+\.(.+)\.weight$")
#: Outputs of a tower's linear layers, for inputs of standard deviation 1; the first that matches.
_TOWER_GAINS = (
    # Louder than positions, so that visual tokens tell images apart.
    (r"patch_embed(ding)?s?(\.proj(ection)?)?$", 2.0),
    (r"(qkv|[qkv]_proj)$", 1.2),
    (r"downsample$", 1.5),
    (r"(merger\.mlp\.0|merger.*linear_fc1|projector\.linear_1)$", 2.0),
    (r"(merger\.mlp\.2|merger.*linear_fc2|projector\.linear_2)$", None),  # what the decoder sees
    (r"(proj|out_proj|projection_layer|(linear_)?fc[12]|(gate|up|down)_proj)$", 1.0),
)


def random_weights(model: PreTrainedModel, shape: TinyShape, tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    """All tensors of the checkpoint under transformers' names, in ``shape.dtype``.

    Args:
        model: may be on the meta device; only names and shapes are read.

    Raises:
        ValueError: for a parameter whose role is unknown.
    """
    source, dtype = Source(shape.seed), getattr(torch, shape.dtype)
    parameters = dict(model.named_parameters())
    # A router's bias, by which experts are chosen and not weighed, is no parameter.
    parameters |= {name: buffer for name, buffer in model.named_buffers() if name.endswith(_BIAS_OF_ROUTER)}
    sharpness = _sharpness(parameters, shape)
    centred = model.config.model_type.startswith("qwen3_5")
    weights = {}
    for name, parameter in parameters.items():
        if name == "lm_head.weight":
            tensor = output_rows(name, shape, source, tokenizer)
        elif name.endswith("embed_tokens.weight"):
            tensor = text_embeddings(name, shape, source, tokenizer.get_vocab_size())
        else:
            tensor = _draw(name, tuple(parameter.shape), shape, source, sharpness)
        if centred and "language_model" in name and _NORM.search(name) and "linear_attn" not in name:
            tensor = tensor - 1  # the model adds one
        assert tensor.shape == parameter.shape, name
        weights[name] = tensor.to(dtype).contiguous()
    return weights


def _sharpness(parameters: dict[str, torch.Tensor], shape: TinyShape) -> dict[str, float]:
    """Gains of the query and key layers, and the mean weight of their norms where a decoder has those."""
    normed = any(name.endswith("q_norm.weight") for name in parameters)
    scale = shape.attention_scale
    return {"projection": 1.0 if normed else scale, "norm": scale}


def _draw(
    name: str, size: tuple[int, ...], shape: TinyShape, source: Source, sharpness: dict[str, float]
) -> torch.Tensor:
    if _NORM.search(name):
        # Not exactly one: a norm weight that is dropped or applied twice must change the output.
        mean = sharpness["norm"] if re.search(r"[qk]_norm\.weight$", name) else 1.0
        return mean * (1 + source.normal(name, *size, std=0.1))
    if name.endswith("image_newline"):
        return source.normal(name, *size, std=shape.visual_scale)
    if name.endswith("cls_token"):
        return source.normal(name, *size, std=1.0)
    if re.search(r"lambda_[12]$", name):  # how much of the stream a layer of the tower rewrites
        return 0.5 + source.normal(name, *size, std=0.05)
    if re.search(r"pos(ition)?_embed(ding)?(\.weight|s)$", name):
        return source.normal(name, *size, std=0.4)
    if name.endswith((".bias", _BIAS_OF_ROUTER)):
        return source.normal(name, *size, std=0.1)
    if name.endswith("mlp.experts.gate_up_proj"):  # [experts, outputs, inputs]
        return source.normal(name, *size, std=1.5 * size[-1] ** -0.5)
    if name.endswith("mlp.experts.down_proj"):
        return source.normal(name, *size, std=shape.residual_scale / 1.5 * size[-1] ** -0.5)
    if name.endswith("linear_attn.dt_bias"):
        return source.normal(name, *size, std=0.5) - 1.0
    if name.endswith("linear_attn.A_log"):
        return source.normal(name, *size, std=0.5) - 1.5
    gain = _gain(name, shape, sharpness)
    fan_in = torch.Size(size[1:]).numel()
    return source.normal(name, *size, std=gain * fan_in**-0.5)


def _gain(name: str, shape: TinyShape, sharpness: dict[str, float]) -> float:
    if layer := _DECODER.search(name):
        gains = {
            "self_attn.q_proj": sharpness["projection"],
            "self_attn.k_proj": sharpness["projection"],
            "self_attn.v_proj": 1.0,
            "self_attn.o_proj": shape.residual_scale,
            "mlp.gate_proj": 1.5,
            "mlp.up_proj": 1.5,
            "mlp.gate_up_proj": 1.5,
            "mlp.down_proj": shape.residual_scale / 1.5,
            # A mixture's router, sharp enough that tokens choose different experts.
            "mlp.gate": 3.0,
            "mlp.shared_experts.gate_proj": 1.5,
            "mlp.shared_experts.up_proj": 1.5,
            "mlp.shared_experts.down_proj": shape.residual_scale / 1.5,
            "mlp.shared_expert.gate_proj": 1.5,
            "mlp.shared_expert.up_proj": 1.5,
            "mlp.shared_expert.down_proj": shape.residual_scale / 1.5,
            "mlp.shared_expert_gate": 1.0,
            "linear_attn.in_proj_qkv": 1.5,
            "linear_attn.in_proj_z": 1.5,
            "linear_attn.in_proj_b": 1.5,
            "linear_attn.in_proj_a": 1.5,
            "linear_attn.out_proj": shape.residual_scale,
            "linear_attn.conv1d": 1.0,
        }
        if layer[1] in gains:
            return gains[layer[1]]
    elif name.endswith(".weight"):
        for pattern, gain in _TOWER_GAINS:
            if re.search(pattern, name.removesuffix(".weight")):
                return shape.visual_scale / 1.3 if gain is None else gain
    raise ValueError(f"what the parameter {name!r} is for is unknown: add a rule for its role")
