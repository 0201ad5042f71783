"""What all checkpoints in InternVL's original chat format have in common, whatever their sizes."""

import json
import shutil
from pathlib import Path
from typing import Any

_CONFIGURATION = "configuration_internvl_chat"
#: Beside it, where the decoder's config is remote code as well; the last one has the model's class.
DECODER_CODE = ("configuration_internlm2", "configuration_phi3", "configuration_internvl_remote")


def chat_config(
    *, image_size: int, patch_size: int, max_dynamic_patch: int, dtype: str, vision: dict[str, Any],
    decoder: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """What `config.json` holds.

    Args:
        vision: the InternViT's own fields, over the common ones.
        decoder: the decoder's own fields, over the common ones.
    """
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": f"{_CONFIGURATION}.InternVLChatConfig"},
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": image_size,
        "llm_config": {
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": dtype,
            **decoder,
        },
        "max_dynamic_patch": max_dynamic_patch,
        "min_dynamic_patch": 1,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internlm2-chat",
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
        "use_thumbnail": True,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_act": "gelu",
            "image_size": image_size,
            "initializer_factor": 0.1,
            "layer_norm_eps": 1e-6,
            "num_channels": 3,
            "patch_size": patch_size,
            "torch_dtype": dtype,
            **vision,
        },
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def write_config(directory: Path, config: dict[str, Any], *code: str) -> None:
    """Write `config.json` and the Python file that it names.

    Args:
        code: more Python files beside it, by their modules; the last one has the config's class then.
    """
    for module in (_CONFIGURATION, *code):
        shutil.copy(Path(__file__).with_name(f"{module}.py"), directory)
    if code:
        config = {**config, "auto_map": {"AutoConfig": f"{code[-1]}.InternVLChatConfig"}}
    write_json(directory / "config.json", config)
