"""Published models at their true sizes, as configs and safetensors headers: what the memory plan reads.

Shapes of decoders and towers are those of published ``config.json`` files as far as memory depends on them.
"""

import copy
import json
import struct
from math import prod
from pathlib import Path
from typing import Any

from benchmarks.true_size import MODELS
from tools.tiny_internvl import tokenizer as tokenizers

_SIZES = {"F32": 4, "BF16": 2, "F16": 2, "I32": 4, "I64": 8, "F8_E4M3": 1, "U8": 1, "I8": 1}

Tensors = dict[str, tuple[str, list[int]]]

#: Quantisation configs of checkpoints of 32B, by kind.
QUANTISED: dict[str, dict[str, Any]] = {
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    "nvfp4": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    "w4a16": {"quant_method": "compressed-tensors", "format": "pack-quantized"},
    "w8a8": {"quant_method": "compressed-tensors", "format": "float-quantized"},
}


def qwen3_vl() -> dict[str, Any]:
    """Qwen3-VL-32B."""
    return MODELS["Qwen3-VL-32B"].config("bfloat16")


def qwen3_vl_moe(hidden: int = 2048, layers: int = 48, heads: int = 32, inner: int = 768) -> dict[str, Any]:
    """Qwen3-VL-30B-A3B, or another size of its kind."""
    config = qwen3_vl()
    config |= {"architectures": ["Qwen3VLMoeForConditionalGeneration"], "model_type": "qwen3_vl_moe"}
    config["text_config"] |= {
        "model_type": "qwen3_vl_moe_text", "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": 4, "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": inner, "intermediate_size": 6144, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "norm_topk_prob": True,
    }  # fmt: skip
    config["vision_config"] |= {"model_type": "qwen3_vl_moe", "out_hidden_size": hidden}
    return config


def qwen3_5(layers: int, hidden: int, heads: int, kv_heads: int, value_heads: int) -> dict[str, Any]:
    """A hybrid decoder of the Qwen3.5 series: attention in every fourth layer."""
    rope = {"mrope_interleaved": True, "mrope_section": [11, 11, 10], "rope_type": "default",
            "rope_theta": 1e7, "partial_rotary_factor": 0.25}  # fmt: skip
    kinds = ["full_attention" if layer % 4 == 3 else "linear_attention" for layer in range(layers)]
    text = {
        "model_type": "qwen3_5_text", "hidden_size": hidden, "intermediate_size": 17408, "layer_types": kinds,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": 256, "max_position_embeddings": 262144, "vocab_size": 248320, "rms_norm_eps": 1e-6,
        "hidden_act": "silu", "rope_parameters": rope, "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": value_heads, "mamba_ssm_dtype": "float32",
        "dtype": "bfloat16", "tie_word_embeddings": False,
    }  # fmt: skip
    vision = copy.deepcopy(qwen3_vl()["vision_config"])
    vision |= {"model_type": "qwen3_5", "out_hidden_size": hidden, "deepstack_visual_indexes": []}
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": text,
        "vision_config": vision, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }  # fmt: skip


def qwen3_5_moe(
    layers: int, hidden: int, heads: int, value_heads: int, experts: int, met: int, inner: int
) -> dict[str, Any]:
    """The same with experts, of which a token meets a few and one that is shared."""
    config = qwen3_5(layers, hidden, heads, 2, value_heads)
    config |= {"architectures": ["Qwen3_5MoeForConditionalGeneration"], "model_type": "qwen3_5_moe"}
    del config["text_config"]["intermediate_size"]
    config["text_config"] |= {
        "model_type": "qwen3_5_moe_text", "num_experts": experts, "num_experts_per_tok": met,
        "moe_intermediate_size": inner, "shared_expert_intermediate_size": inner,
    }  # fmt: skip
    config["vision_config"]["model_type"] = "qwen3_5_moe"
    return config


def gemma3() -> dict[str, Any]:
    """Gemma 3 27B: five layers of six see a window of 1,024 tokens."""
    layers = 62
    kinds = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(layers)]
    text = {
        "model_type": "gemma3_text", "hidden_size": 5376, "intermediate_size": 21504, "layer_types": kinds,
        "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
        "max_position_embeddings": 131072, "vocab_size": 262208, "sliding_window": 1024,
        "query_pre_attn_scalar": 168, "dtype": "bfloat16",
    }  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
        "image_size": 896, "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14,
        "vision_use_head": False,
    }  # fmt: skip
    return {
        "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
        "vision_config": vision, "mm_tokens_per_image": 256, "torch_dtype": "bfloat16",
    }  # fmt: skip


def deepseek_v2_lite() -> dict[str, Any]:
    """DeepSeek-V2-Lite: latent attention (MLA), as in the decoders of Kimi-VL and DeepSeek-VL2."""
    return {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "hidden_size": 2048,
        "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 27,
        "num_attention_heads": 16, "num_key_value_heads": 16, "n_shared_experts": 2, "n_routed_experts": 64,
        "num_experts_per_tok": 6, "first_k_dense_replace": 1, "kv_lora_rank": 512, "q_lora_rank": None,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "topk_method": "greedy",
        "n_group": 1, "topk_group": 1, "moe_layer_freq": 1, "scoring_func": "softmax",
        "norm_topk_prob": False, "routed_scaling_factor": 1.0, "vocab_size": 102400,
        "max_position_embeddings": 32768, "rope_theta": 10000, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    }  # fmt: skip


def decoder(config: dict[str, Any], kind: str = "bf16") -> Tensors:
    """The names, dtypes and shapes of a dense Qwen3 decoder's weights, as checkpoints of a kind have them."""
    text = config["text_config"]
    hidden, inner, head = text["hidden_size"], text["intermediate_size"], text["head_dim"]
    query, key = text["num_attention_heads"] * head, text["num_key_value_heads"] * head
    shapes = {
        "self_attn.q_proj": (query, hidden), "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden), "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
    }  # fmt: skip
    found: Tensors = _embeddings(text)
    for layer in range(text["num_hidden_layers"]):
        for name, (out, into) in shapes.items():
            for suffix, stored in _linear(kind, out, into).items():
                found[f"model.language_model.layers.{layer}.{name}.{suffix}"] = stored
    return found


def experts(config: dict[str, Any]) -> Tensors:
    """Of a decoder whose experts are one tensor of three dimensions in each layer."""
    text = config["text_config"]
    hidden, count, inner = text["hidden_size"], text["num_experts"], text["moe_intermediate_size"]
    found = _embeddings(text)
    for layer in range(text["num_hidden_layers"]):
        root = f"model.language_model.layers.{layer}.mlp."
        found[root + "gate.weight"] = ("BF16", [count, hidden])
        found[root + "experts.gate_up_proj"] = ("BF16", [count, hidden, 2 * inner])
        found[root + "experts.down_proj"] = ("BF16", [count, inner, hidden])
    return found


def stored_bytes(tensors: Tensors) -> int:
    return sum(_SIZES[kind] * prod(shape) for kind, shape in tensors.values())


def write(directory: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    """A checkpoint whose file has headers, and room for weights that nobody wrote."""
    directory.mkdir(parents=True, exist_ok=True)
    text = config.get("text_config", config)
    tokenizers.write(tokenizers.train(), directory, text["max_position_embeddings"])
    (directory / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, (kind, shape) in tensors.items():
        size = _SIZES[kind] * prod(shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + at)  # a hole
    return directory


def _embeddings(text: dict[str, Any]) -> Tensors:
    shape = [text["vocab_size"], text["hidden_size"]]
    return {"lm_head.weight": ("BF16", shape), "model.language_model.embed_tokens.weight": ("BF16", shape)}


def _linear(kind: str, out: int, into: int) -> Tensors:
    """Tensors of one linear layer."""
    groups = into // 128
    by_kind: dict[str, Tensors] = {
        "bf16": {"weight": ("BF16", [out, into])},
        "fp8": {"weight": ("F8_E4M3", [out, into]), "weight_scale_inv": ("F32", [out // 128, groups])},
        "awq": {"qweight": ("I32", [into, out // 8]), "qzeros": ("I32", [groups, out // 8]),
                "scales": ("F16", [groups, out])},
        "gptq": {"qweight": ("I32", [into // 8, out]), "qzeros": ("I32", [groups, out // 8]),
                 "scales": ("F16", [groups, out]), "g_idx": ("I32", [into])},
        "nvfp4": {"weight": ("U8", [out, into // 2]), "weight_scale": ("F8_E4M3", [out, into // 16]),
                  "weight_scale_2": ("F32", [1]), "input_scale": ("F32", [1])},
        "w4a16": {"weight_packed": ("I32", [out, into // 8]), "weight_scale": ("BF16", [out, groups]),
                  "weight_shape": ("I64", [2])},
        "w8a8": {"weight": ("F8_E4M3", [out, into]), "weight_scale": ("BF16", [out, 1])},
    }  # fmt: skip
    return by_kind[kind]
