"""What every generic test runs over."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools import tiny_families, tiny_internvl


@dataclass(frozen=True)
class Family:
    """build: makes a (small, large) pair of tiny checkpoints below a folder."""

    name: str
    build: Callable[[Path], tuple[Path, Path]]
    positions: tuple[str, ...] = ("original", "packed")


def _tiny(name: str, *positions: str) -> Family:
    family = tiny_families.FAMILIES[name]
    return Family(name, lambda folder: tiny_families.build_pair(family, folder), positions)


FAMILIES = (
    Family("internvl", tiny_internvl.build_pair),
    _tiny("internvl_hf", "original", "packed"),
    _tiny("llava_onevision", "original", "packed"),
    _tiny("qwen2_vl", "original"),
    _tiny("qwen2_5_vl", "original"),
    _tiny("qwen3_vl", "original"),
)

#: Each family with each kind of position ids that it can have.
CASES = [
    pytest.param((family, positions), id=f"{family.name}-{positions}")
    for family in FAMILIES
    for positions in family.positions
]
