"""Writes a checkpoint directory in InternVL's original chat format."""

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file
from tokenizers import Tokenizer

from . import tokenizer as tokenizers_
from .spec import LARGE_QWEN2, SMALL_QWEN2, TinySpec
from .weights import random_weights

_CONFIGURATION = "configuration_internvl_chat"
_DECODERS = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
_TILING = ("image_size", "patch_size", "max_dynamic_patch")


def _vision_config(spec: TinySpec) -> dict:
    return {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "hidden_act": "gelu",
        "hidden_size": spec.vit_hidden,
        "image_size": spec.image_size,
        "initializer_factor": 0.1,
        "intermediate_size": 2 * spec.vit_hidden,
        "layer_norm_eps": 1e-6,
        "norm_type": "layer_norm",
        "num_attention_heads": spec.vit_heads,
        "num_channels": 3,
        "num_hidden_layers": spec.vit_layers,
        "patch_size": spec.patch_size,
        "qk_normalization": False,
        "qkv_bias": True,
        "torch_dtype": spec.dtype,
    }


def _llm_config(spec: TinySpec, tokenizer: Tokenizer) -> dict:
    return {
        "architectures": [_DECODERS[spec.decoder]],
        "model_type": spec.decoder,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(tokenizers_.IM_END),
        "pad_token_id": tokenizer.token_to_id(tokenizers_.PAD),
        "hidden_act": "silu",
        "hidden_size": spec.hidden,
        "intermediate_size": spec.intermediate,
        "max_position_embeddings": spec.max_position_embeddings,
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": spec.dtype,
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }


def _config(spec: TinySpec, tokenizer: Tokenizer) -> dict:
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": f"{_CONFIGURATION}.InternVLChatConfig"},
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": spec.image_size,
        "llm_config": _llm_config(spec, tokenizer),
        "max_dynamic_patch": spec.max_dynamic_patch,
        "min_dynamic_patch": 1,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internlm2-chat",
        "tie_word_embeddings": False,
        "torch_dtype": spec.dtype,
        "use_thumbnail": True,
        "vision_config": _vision_config(spec),
    }


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def build(spec: TinySpec, directory: Path | str) -> Path:
    """Write the checkpoint of `spec` into `directory` (created if missing) and return the path.

    vLLM loads it with `trust_remote_code=True`. The same spec gives the same bytes.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizers_.train()
    tokenizers_.write(tokenizer, directory, spec.max_position_embeddings)
    shutil.copy(Path(__file__).with_name(f"{_CONFIGURATION}.py"), directory)
    _write_json(directory / "config.json", _config(spec, tokenizer))
    _write_json(
        directory / "generation_config.json",
        {
            "eos_token_id": tokenizer.token_to_id(tokenizers_.IM_END),
            "pad_token_id": tokenizer.token_to_id(tokenizers_.PAD),
        },
    )
    weights = random_weights(spec, tokenizer)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def build_pair(
    directory: Path | str,
    small: TinySpec = SMALL_QWEN2,
    large: TinySpec = LARGE_QWEN2,
) -> tuple[Path, Path]:
    """Write `small` and `large` below `directory`; return (small path, large path).

    Raises:
        ValueError: the two would cut the same image into different visual tokens.
    """
    for field in _TILING:
        if getattr(small, field) != getattr(large, field):
            raise ValueError(
                f"small and large model must tile alike: {field} is "
                f"{getattr(small, field)} and {getattr(large, field)}"
            )
    directory = Path(directory)
    return build(small, directory / small.name), build(large, directory / large.name)
