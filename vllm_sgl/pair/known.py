"""The series of models that make pairs, for those who do not know yet which two to take."""

from dataclasses import dataclass

from vllm_sgl.families import FAMILIES


@dataclass(frozen=True)
class Series:
    """Models that cut images alike, so that any of them may guide any larger one.

    architecture: as in their ``config.json``. small, large: sizes to choose from. gain: of one small and one
        large of them, how many times as fast a prefill is at most with 35 % kept (:mod:`vllm_sgl.pair.work`).
    """

    architecture: str
    name: str
    small: str
    large: str
    gain: tuple[str, str, float] | None = None


#: Sorted by their gain. Those of 1B guides are a little higher.
_EVERY = (
    Series(
        "LlavaOnevisionForConditionalGeneration", "LLaVA-OneVision", "0.5B, 7B", "72B",
        ("LLaVA-OV-0.5B", "LLaVA-OV-72B", 2.7),
    ),
    Series(
        "Qwen2VLForConditionalGeneration", "Qwen2-VL", "2B, 7B", "72B", ("Qwen2-VL-2B", "Qwen2-VL-72B", 2.3)
    ),
    Series(
        "Qwen2_5_VLForConditionalGeneration", "Qwen2.5-VL", "3B, 7B", "32B, 72B",
        ("Qwen2.5-VL-3B", "Qwen2.5-VL-72B", 2.2),
    ),
    Series(
        "Qwen3VLForConditionalGeneration", "Qwen3-VL", "2B, 4B, 8B", "32B",
        ("Qwen3-VL-2B", "Qwen3-VL-32B", 2.1),
    ),
    Series(
        "InternVLChatModel", "InternVL2", "1B, 2B, 4B, 8B", "26B, 40B, Llama3-76B",
        ("InternVL2-2B", "InternVL2-Llama3-76B", 1.9),
    ),
    Series(
        "InternVLChatModel", "InternVL3", "1B, 2B, 8B", "38B, 78B", ("InternVL3-2B", "InternVL3-38B", 1.5)
    ),
    Series(
        "InternVLForConditionalGeneration", "InternVL3 (-hf)", "1B, 2B, 8B", "38B, 78B",
        ("InternVL3-2B", "InternVL3-38B", 1.5),
    ),
    Series(
        "InternVLChatModel", "InternVL3.5", "1B, 2B, 4B, 8B", "38B",
        ("InternVL3_5-2B", "InternVL3_5-38B", 1.5),
    ),
    Series(
        "InternVLForConditionalGeneration", "InternVL3.5 (-HF)", "1B, 2B, 4B, 8B", "38B",
        ("InternVL3_5-2B", "InternVL3_5-38B", 1.5),
    ),
    Series("InternVLChatModel", "InternVL2.5", "1B, 2B, 4B, 8B", "26B, 38B, 78B"),
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
    rows += [(f"`{one.architecture}`", one.name, one.small, one.large, _gain(one)) for one in SERIES]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n\n" + _NOTE


def _gain(series: Series) -> str:
    if series.gain is None:
        return "-"
    small, large, most = series.gain
    return f"{most} ({small.rsplit('-', 1)[1]} for {large.rsplit('-', 1)[1]})"
