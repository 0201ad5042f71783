"""Models in transformers' own format: published configs as files, one folder per family.

A folder holds ``NAME.json``, the ``config.json`` of a size, and ``processor/``, what all sizes have beside
it.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from tools.tiny_internvl import tokenizer as tokenizers_
from tools.tiny_internvl.chat_format import write_json

from .checkpoint import TrueSize

CONFIGS = Path(__file__).with_name("configs")
#: Field of the config -> the special token whose id it holds.
_QWEN_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_TOKENS = {
    "qwen2_vl": _QWEN_TOKENS,
    "qwen2_5_vl": _QWEN_TOKENS,
    "qwen3_vl": _QWEN_TOKENS,
    "llava_onevision": {"image_token_index": "<image>", "video_token_index": "<video>"},
}


@dataclass(frozen=True)
class TransformersSize(TrueSize):
    """family: a folder of ``configs/``, and the config's ``model_type``. largest_image: its visual tokens."""

    name: str
    family: str
    repository: str
    billions: float
    largest_image: int

    @property
    def max_visual_tokens(self) -> int:
        return self.largest_image

    def config(self, dtype: str) -> dict[str, Any]:
        """As published, but for ``dtype``: ids of special tokens are those of the published tokenizer."""
        config = json.loads((CONFIGS / self.family / f"{self.name}.json").read_text())
        if "dtype" in config.get("text_config", {}):
            config["text_config"]["dtype"] = dtype
        return config | {"torch_dtype": dtype}

    def write(self, directory: Path, dtype: str) -> None:
        """Ids of special tokens are those of the small tokenizer that is written."""
        config, special = self.config(dtype), _TOKENS[self.family]
        tokenizer = tokenizers_.train()
        tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special.values()])
        text = config.get("text_config", config)
        tokenizers_.write(tokenizer, directory, text["max_position_embeddings"])
        shutil.copytree(CONFIGS / self.family / "processor", directory, dirs_exist_ok=True)
        text["bos_token_id"] = text["eos_token_id"] = tokenizer.token_to_id(tokenizers_.IM_END)
        ids = {name: tokenizer.token_to_id(token) for name, token in special.items()}
        write_json(directory / "config.json", config | ids)


#: Visual tokens of the largest image, as vLLM counts them.
_QWEN_MOST, _LLAVA_MOST = 16384, 8748

MODELS = [
    TransformersSize("Qwen2-VL-2B", "qwen2_vl", "Qwen/Qwen2-VL-2B-Instruct", 2.21, _QWEN_MOST),
    TransformersSize("Qwen2-VL-72B", "qwen2_vl", "Qwen/Qwen2-VL-72B-Instruct", 73.4, _QWEN_MOST),
    TransformersSize("Qwen2.5-VL-3B", "qwen2_5_vl", "Qwen/Qwen2.5-VL-3B-Instruct", 3.75, _QWEN_MOST),
    TransformersSize("Qwen2.5-VL-72B", "qwen2_5_vl", "Qwen/Qwen2.5-VL-72B-Instruct", 73.4, _QWEN_MOST),
    TransformersSize("Qwen3-VL-2B", "qwen3_vl", "Qwen/Qwen3-VL-2B-Instruct", 2.13, _QWEN_MOST),
    TransformersSize("Qwen3-VL-32B", "qwen3_vl", "Qwen/Qwen3-VL-32B-Instruct", 33.4, _QWEN_MOST),
    TransformersSize(
        "LLaVA-OV-0.5B", "llava_onevision", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", 0.894, _LLAVA_MOST
    ),
    TransformersSize(
        "LLaVA-OV-7B", "llava_onevision", "llava-hf/llava-onevision-qwen2-7b-ov-hf", 8.03, _LLAVA_MOST
    ),
    TransformersSize(
        "LLaVA-OV-72B", "llava_onevision", "llava-hf/llava-onevision-qwen2-72b-ov-hf", 73.2, _LLAVA_MOST
    ),
]
