"""Chat-format InternVL checkpoints to transformers' own InternVL classes, and back."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import InternVLConfig, InternVLForConditionalGeneration

_VISION_LAYER = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.(.+)")
_VISION_RENAMES = {
    "attn.proj": "attention.projection_layer",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
}
_RENAMES = {
    "vision_model.embeddings.class_embedding": "model.vision_tower.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": ("model.vision_tower.embeddings.position_embeddings"),
    "vision_model.embeddings.patch_embedding.": (
        "model.vision_tower.embeddings.patch_embeddings.projection."
    ),
    "mlp1.0.": "model.multi_modal_projector.layer_norm.",
    "mlp1.1.": "model.multi_modal_projector.linear_1.",
    "mlp1.3.": "model.multi_modal_projector.linear_2.",
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
}


#: InternLM2's names, and Llama's.
_INTERNLM2_NAMES = {
    "language_model.output.": "language_model.lm_head.",
    ".tok_embeddings.": ".embed_tokens.",
    ".attention.wo.": ".self_attn.o_proj.",
    ".feed_forward.w1.": ".mlp.gate_proj.",
    ".feed_forward.w2.": ".mlp.down_proj.",
    ".feed_forward.w3.": ".mlp.up_proj.",
    ".attention_norm.": ".input_layernorm.",
    ".ffn_norm.": ".post_attention_layernorm.",
}


def _rename(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    if match := _VISION_LAYER.fullmatch(name):
        layer, rest = match.groups()
        target = f"model.vision_tower.encoder.layer.{layer}"
        if rest.startswith("attn.qkv."):
            leaf = rest.rsplit(".", 1)[1]
            parts = zip("qkv", tensor.chunk(3), strict=True)
            return {f"{target}.attention.{p}_proj.{leaf}": t.clone() for p, t in parts}
        for old, new in _VISION_RENAMES.items():
            if rest == old or rest.startswith(f"{old}."):
                return {f"{target}.{new}{rest.removeprefix(old)}": tensor}
    for old, new in _RENAMES.items():
        if name.startswith(old):
            return {new + name.removeprefix(old): tensor}
    raise KeyError(f"no place for the tensor {name!r} in transformers' InternVL")


def text_config(decoder: dict) -> dict:
    """A decoder's config as transformers' own classes take it. InternLM2 is a Llama that is stored in another
    way; its dynamic scaling of positions begins beyond the context that it was made for. Phi-3's "su" is
    called LongRoPE now."""
    if decoder["model_type"] == "phi3":
        scaling = {name: value for name, value in decoder["rope_scaling"].items() if name != "type"}
        before = decoder["original_max_position_embeddings"]
        scaling |= {"rope_type": "longrope", "original_max_position_embeddings": before}
        return {**decoder, "rope_scaling": scaling}
    if decoder["model_type"] != "internlm2":
        return dict(decoder)
    foreign = ("architectures", "auto_map", "bias", "rope_scaling")
    return {**{name: decoder[name] for name in decoder if name not in foreign}, "model_type": "llama"}


def _split_internlm2(name: str, tensor: torch.Tensor, decoder: dict) -> dict[str, torch.Tensor]:
    """InternLM2's tensors under Llama's names. Rows of the fused projection are, for each KV head, those of
    its query heads, of its key and of its value."""
    if name.endswith("attention.wqkv.weight"):
        heads, kv_heads = decoder["num_attention_heads"], decoder["num_key_value_heads"]
        per_group = heads // kv_heads
        rows = tensor.view(kv_heads, per_group + 2, decoder["hidden_size"] // heads, -1)
        parts = {"q": rows[:, :per_group], "k": rows[:, -2:-1], "v": rows[:, -1:]}
        place = name.replace("attention.wqkv", "self_attn.{}_proj")
        return {place.format(part): rows.flatten(0, 2).clone() for part, rows in parts.items()}
    for old, new in _INTERNLM2_NAMES.items():
        name = name.replace(old, new)
    return {name: tensor}


def native_config(chat: dict, image_token_id: int) -> InternVLConfig:
    vision = chat["vision_config"]
    assert chat["select_layer"] == -1
    assert chat["ps_version"] == "v2"
    return InternVLConfig(
        vision_config={
            "hidden_size": vision["hidden_size"],
            "intermediate_size": vision["intermediate_size"],
            "num_hidden_layers": vision["num_hidden_layers"],
            "num_attention_heads": vision["num_attention_heads"],
            "attention_bias": vision["qkv_bias"],
            "use_qk_norm": vision["qk_normalization"],
            "norm_type": vision["norm_type"],
            "layer_norm_eps": vision["layer_norm_eps"],
            "hidden_act": vision["hidden_act"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
        },
        text_config=text_config(chat["llm_config"]),
        image_token_id=image_token_id,
        downsample_ratio=chat["downsample_ratio"],
        tie_word_embeddings=chat["llm_config"]["tie_word_embeddings"],
        attn_implementation="eager",
    )


def load(path: Path, image_token_id: int) -> InternVLForConditionalGeneration:
    """The model in float32, eager attention, evaluation mode. Every tensor must find its place."""
    chat = json.loads((path / "config.json").read_text())
    config = native_config(chat, image_token_id)
    config.text_config.dtype = config.vision_config.dtype = config.dtype = torch.float32
    model = InternVLForConditionalGeneration(config)
    state: dict[str, torch.Tensor] = {}
    decoder = chat["llm_config"]
    for name, tensor in load_file(path / "model.safetensors").items():
        plain = {name: tensor.to(torch.float32)}
        if decoder["model_type"] == "internlm2" and name.startswith("language_model."):
            plain = _split_internlm2(name, plain[name], decoder)
        for own, part in plain.items():
            state |= _rename(own, part)
    if decoder["model_type"] == "qwen3_moe":  # transformers keeps experts in one tensor
        for layer in range(decoder["num_hidden_layers"]):
            root = f"model.language_model.layers.{layer}.mlp.experts"
            of = [
                [state.pop(f"{root}.{e}.{part}_proj.weight") for part in ("gate", "up", "down")]
                for e in range(decoder["num_experts"])
            ]
            state[f"{root}.gate_up_proj"] = torch.stack([torch.cat([g, u]) for g, u, _ in of])
            state[f"{root}.down_proj"] = torch.stack([d for _, _, d in of])
    model.load_state_dict(state, strict=True)
    return model.eval()


def chat_tensors(model: InternVLForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The model's tensors under their names in the chat format."""
    native = dict(model.state_dict())
    tensors: dict[str, torch.Tensor] = {}
    for name in list(native):
        if ".attention.q_proj." in name:
            parts = [native.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            tensors[_chat_name(name.replace(".attention.q_proj.", ".attn.qkv."))] = torch.cat(parts)
    return tensors | {_chat_name(name): tensor.clone() for name, tensor in native.items()}


def _chat_name(name: str) -> str:
    if match := re.fullmatch(r"model\.vision_tower\.encoder\.layer\.(\d+)\.(.+)", name):
        layer, rest = match.groups()
        for old, new in _VISION_RENAMES.items():
            if rest == new or rest.startswith(f"{new}."):
                rest = old + rest.removeprefix(new)
        return f"vision_model.encoder.layers.{layer}.{rest}"
    for old, new in _RENAMES.items():
        if name.startswith(new):
            return old + name.removeprefix(new)
    raise KeyError(f"no place for the tensor {name!r} in the chat format")
