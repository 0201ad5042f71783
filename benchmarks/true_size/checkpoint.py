"""What every model of true size can do: say what it is, and write a checkpoint directory without weights."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch


class TrueSize(ABC):
    """One published model.

    Attributes:
        name: short and unique, for files and command lines.
        repository: on Hugging Face, whose ``config.json`` has these sizes.
        billions: parameters, in billions, as that repository states them.
    """

    name: str
    repository: str
    billions: float

    def parameters(self) -> int:
        """How many parameters it has."""
        return round(self.billions * 1e9)

    @property
    @abstractmethod
    def max_visual_tokens(self) -> int:
        """Visual tokens of the largest image."""

    @abstractmethod
    def config(self, dtype: str) -> dict[str, Any]:
        """What ``config.json`` holds."""

    @abstractmethod
    def write(self, directory: Path, dtype: str) -> None:
        """Write config, tokenizer and processor files; the directory exists."""


def config(size: TrueSize, dtype: str = "bfloat16") -> dict[str, Any]:
    """What ``config.json`` holds."""
    return size.config(dtype)


def build(size: TrueSize, directory: Path | str, dtype: str = "bfloat16") -> Path:
    """Write a checkpoint directory without weights (created if missing) and return its path.

    An index says how large the weights would be: who shares a device out between two engines must know.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    size.write(directory, dtype)
    total = size.parameters() * getattr(torch, dtype).itemsize
    index = {"metadata": {"total_size": total}, "weight_map": {}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory
