"""The same quantities outside of vLLM: importance, answers and scores by transformers, a file per family."""

import json
from functools import cache
from pathlib import Path

from .chat_internvl import ChatInternVL
from .internvl_hf import InternVLHF
from .llava_onevision import LlavaOnevision
from .qwen_vl import Glm4v, Qwen2VL, Qwen3VL, Qwen35
from .reference import Generated, Positions, QueryRows, Reference, confidence, select

__all__ = ["Generated", "Positions", "QueryRows", "Reference", "confidence", "reference", "select"]

FAMILIES: dict[str, type[Reference]] = {
    "internvl": InternVLHF,
    "internvl_chat": ChatInternVL,
    "llava_onevision": LlavaOnevision,
    "qwen2_vl": Qwen2VL,
    "qwen2_5_vl": Qwen2VL,
    "qwen3_vl": Qwen3VL,
    "qwen3_vl_moe": Qwen3VL,
    "qwen3_5": Qwen35,
    "glm4v": Glm4v,
    "glm4v_moe": Glm4v,
    "qwen3_5_moe": Qwen35,
}


@cache
def reference(path: Path) -> Reference:
    """The reference for a checkpoint directory, loaded once per process.

    Raises:
        ValueError: for a model type of no family here.
    """
    kind = json.loads((path / "config.json").read_text())["model_type"]
    if kind not in FAMILIES:
        raise ValueError(f"{path} has the model type {kind!r}; references are for {', '.join(FAMILIES)}")
    return FAMILIES[kind](path)
