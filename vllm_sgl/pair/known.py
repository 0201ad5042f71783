"""The known series of models that make pairs, as suggestions."""

from dataclasses import dataclass

from vllm_sgl.families import FAMILIES


@dataclass(frozen=True)
class Series:
    """Models that cut images alike, so that any of them may guide any larger one.

    architecture: as in their ``config.json``. small, large: sizes to choose from. gains: of a small and a
        large one, how many times as fast a prefill is at most with 35 % kept (:mod:`vllm_sgl.pair.work`).
    """

    architecture: str
    name: str
    small: str
    large: str
    gains: tuple[tuple[str, str, float], ...] = ()


#: Sorted by the first gain of each. Guides of 1B gain a little more.
_EVERY = (
    Series(
        "LlavaOnevisionForConditionalGeneration", "LLaVA-OneVision", "0.5B, 7B", "72B",
        (("LLaVA-OV-0.5B", "LLaVA-OV-72B", 2.7),),
    ),
    Series(
        "Qwen2VLForConditionalGeneration", "Qwen2-VL", "2B, 7B", "72B",
        (("Qwen2-VL-2B", "Qwen2-VL-72B", 2.3),),
    ),
    Series(
        "Qwen2_5_VLForConditionalGeneration", "Qwen2.5-VL", "3B, 7B", "32B, 72B",
        (("Qwen2.5-VL-3B", "Qwen2.5-VL-72B", 2.2),),
    ),
    Series(
        "Qwen3VLForConditionalGeneration", "Qwen3-VL", "2B, 4B, 8B", "32B",
        (("Qwen3-VL-2B", "Qwen3-VL-32B", 2.1),),
    ),
    Series(
        "Qwen3_5ForConditionalGeneration", "Qwen3.5, 3.6", "0.8B, 2B, 4B", "9B, 27B",
        (("Qwen3-VL-2B", "Qwen3.5-27B", 2.0),),
    ),
    Series(
        "InternVLChatModel", "InternVL2", "1B, 2B, 4B, 8B", "26B, 40B, Llama3-76B",
        (("InternVL2-2B", "InternVL2-Llama3-76B", 1.9), ("InternVL2-2B", "InternVL2-26B", 1.3)),
    ),
    Series(
        "Qwen3VLMoeForConditionalGeneration", "Qwen3-VL MoE", "Qwen3-VL 2B, 4B, 8B", "30B-A3B, 235B-A22B",
        (("Qwen3-VL-2B", "Qwen3-VL-235B-A22B", 1.9), ("Qwen3-VL-2B", "Qwen3-VL-30B-A3B", 0.8)),
    ),
    Series(
        "Qwen3_5MoeForConditionalGeneration", "Qwen3.5, 3.6 MoE", "Qwen3.5 0.8B, 2B, 4B",
        "35B-A3B, 122B-A10B, 397B-A17B",
        (("Qwen3-VL-2B", "Qwen3.5-397B-A17B", 1.7), ("Qwen3-VL-2B", "Qwen3.5-35B-A3B", 0.8)),
    ),
    Series(
        "InternVLChatModel", "InternVL3", "1B, 2B, 8B", "38B, 78B",
        (("InternVL3-2B", "InternVL3-38B", 1.5),),
    ),
    Series(
        "InternVLForConditionalGeneration", "InternVL3 (-hf)", "1B, 2B, 8B", "38B, 78B",
        (("InternVL3-2B", "InternVL3-38B", 1.5),),
    ),
    Series(
        "InternVLChatModel", "InternVL3.5", "1B, 2B, 4B, 8B", "14B, 38B, 30B-A3B, 241B-A28B",
        (("InternVL3_5-2B", "InternVL3_5-38B", 1.5),),
    ),
    Series(
        "InternVLForConditionalGeneration", "InternVL3.5 (-HF)", "1B, 2B, 4B, 8B",
        "14B, 38B, 30B-A3B, 241B-A28B", (("InternVL3_5-2B", "InternVL3_5-38B", 1.5),),
    ),
    Series("InternVLChatModel", "InternVL2.5", "1B, 2B, 4B, 8B", "26B, 38B, 78B"),
    Series("Glm4vMoeForConditionalGeneration", "GLM-4.5V, 4.6V", "4.6V-Flash", "106B-A12B"),
    Series("Glm4vForConditionalGeneration", "GLM-4.1V", "Qwen3-VL 2B (crossed)", "9B, 4.6V-Flash"),
    Series("InternS1ForConditionalGeneration", "Intern-S1", "mini (8B)", "241B-A28B"),
)  # fmt: skip

#: Those whose architecture has a family here.
SERIES = tuple(series for series in _EVERY if series.architecture in FAMILIES)

_NOTE = """\
Models of one series cut images alike and make pairs: over one prompt where tokenizer and chat template agree
too, else the small model gets a prompt of its own. Models of different series make crossed pairs: what the
small one saw is carried to where the large one's visual tokens lie. `vllm-sgl pairs SMALL LARGE` reads the
two models' files and tells. The gain is the bound of a prefill's speed-up with 35 % of the visual tokens
kept, by active parameters, vision encoders and the guide included; tiles that close and exits come on top."""


def table() -> str:
    """As Markdown."""
    rows = [("architecture", "series", "small, such as", "large, such as", "gain at most"), ("---",) * 5]
    rows += [(f"`{one.architecture}`", one.name, one.small, one.large, _gains(one)) for one in SERIES]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n\n" + _NOTE


def _gains(series: Series) -> str:
    said = [f"{most} ({_size(small)} for {_size(large)})" for small, large, most in series.gains]
    return ", ".join(said) or "-"


def _size(name: str) -> str:
    """What follows the series: "35B-A3B" of "Qwen3.5-35B-A3B"."""
    parts = name.split("-")
    return "-".join(parts[-2:]) if parts[-1].startswith("A") else parts[-1]
