"""Tiny pairs that need importance carried from one layout to another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools import tiny_families, tiny_internvl

#: A Qwen token is 28 x 28 pixels: at most 24 of them for an image.
FEW_PIXELS = {"mm_processor_kwargs": {"size": {"shortest_edge": 4 * 28**2, "longest_edge": 24 * 28**2}}}
FEW_TILES = {"mm_processor_kwargs": {"max_dynamic_patch": 2}}


@dataclass(frozen=True)
class Crossed:
    """small, large: names of families. small_args: as ``--sgl-small-args``."""

    small: str
    large: str
    small_args: Mapping[str, Any] = field(default_factory=dict)

    def build(self, folder: Path) -> tuple[Path, Path]:
        return _build(self.small, "small", folder), _build(self.large, "large", folder)


def _build(family: str, which: str, folder: Path) -> Path:
    path = folder / f"{which}-{family}"
    if family == "internvl":
        spec = {"small": tiny_internvl.SMALL_QWEN2, "large": tiny_internvl.LARGE_QWEN2}[which]
        return tiny_internvl.build(spec, path)
    shape = {"small": tiny_families.SMALL, "large": tiny_families.LARGE}[which]
    return tiny_families.build(tiny_families.FAMILIES[family], shape, path)


#: One line a pair; every generic test runs over them.
PAIRS = {
    "internvl to llava_onevision": Crossed("internvl", "llava_onevision"),
    "internvl to qwen2_5_vl": Crossed("internvl", "qwen2_5_vl"),
    "qwen2_5_vl to internvl": Crossed("qwen2_5_vl", "internvl"),
    "llava_onevision to qwen2_vl": Crossed("llava_onevision", "qwen2_vl"),
    "qwen3_vl to internvl_hf": Crossed("qwen3_vl", "internvl_hf"),
    "fewer tiles": Crossed("internvl", "internvl", FEW_TILES),
    "fewer pixels": Crossed("qwen2_vl", "qwen2_vl", FEW_PIXELS),
}
