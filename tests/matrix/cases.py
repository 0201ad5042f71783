"""What every generic test runs over."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tools import tiny_families, tiny_internvl


@dataclass(frozen=True)
class Family:
    """build: makes a (small, large) pair of tiny checkpoints below a folder. videos: whether it takes any."""

    name: str
    build: Callable[[Path], tuple[Path, Path]]
    positions: tuple[str, ...] = ("original", "packed")
    videos: bool = True


def _tiny(name: str, *positions: str) -> Family:
    family = tiny_families.FAMILIES[name]
    return Family(name, lambda folder: tiny_families.build_pair(family, folder), positions)


FAMILIES = (
    Family("internvl", tiny_internvl.build_pair, videos=False),
    _tiny("internvl_hf", "original", "packed"),
    _tiny("llava_onevision", "original", "packed"),
    _tiny("qwen2_vl", "original"),
    _tiny("qwen2_5_vl", "original"),
    _tiny("qwen3_vl", "original"),
)


def _decoder(name: str, **changes: Any) -> Family:
    small, large = (replace(spec, **changes) for spec in tiny_internvl.DECODER_PAIRS[name])
    name = "-".join([name, *changes])
    return Family(name, lambda folder: tiny_internvl.build_pair(folder, small, large), ("original",), False)


#: Decoders that InternVL's chat format has beside Qwen2. With so short an original context, every prompt of a
#: Phi-3 is beyond it.
DECODERS = (
    _decoder("internlm2"),
    _decoder("phi3"),
    _decoder("phi3", original_context=24),
    _decoder("qwen3"),
    _decoder("yi"),
    _decoder("llama3"),
)


def _cases(families: tuple[Family, ...]) -> list[Any]:
    return [
        pytest.param((family, positions), id=f"{family.name}-{positions}")
        for family in families
        for positions in family.positions
    ]


def _mixed(name: str, small: str, large: str, videos: bool = True) -> Family:
    """A small model of one family, and a large one of another that cuts images alike."""

    def build(folder: Path) -> tuple[Path, Path]:
        shapes = (small, tiny_families.SMALL), (large, tiny_families.LARGE)
        paths = [
            tiny_families.build(
                tiny_families.FAMILIES[family],
                replace(shape, name=f"{shape.name}-{family}"),
                folder / f"{shape.name}-{family}",
            )
            for family, shape in shapes
        ]
        return paths[0], paths[1]

    return Family(name, build, ("original",), videos)


#: Families that differ from those above in their decoders alone, or that add little to them: what the others
#: are asked one by one is asked of one pair of engines each.
ONE_PAIR_EACH = (
    _mixed("qwen3_vl_moe", "qwen3_vl", "qwen3_vl_moe"),
    _mixed("qwen3_5", "qwen3_5", "qwen3_5"),
    _mixed("qwen3_5_moe", "qwen3_5", "qwen3_5_moe"),
    _mixed("glm4v", "glm4v", "glm4v"),
    _mixed("glm4v_moe", "glm4v", "glm4v_moe"),
    _decoder("qwen3_moe"),
    Family("interns1", tiny_families.internvl_hf.build_intern_s1, ("original",)),
)


#: Those that have videos. In InternVL's chat format a token of the decoder's vocabulary makes them possible.
#: Packed positions know nothing of videos, so one family with them will do.
VIDEO_CASES = [
    *_cases((Family("internvl_video", partial(tiny_internvl.build_pair, videos=True)),)),
    *_cases(tuple(replace(family, positions=("original",)) for family in FAMILIES if family.videos)),
]
#: Each family with each kind of position ids that it can have.
CASES = _cases(FAMILIES)
#: Those whose engines are looked into; servers do not differ by decoder.
ENGINE_CASES = [*CASES, *_cases(DECODERS)]
