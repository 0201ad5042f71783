"""The known series of models that make pairs, as suggestions."""

from dataclasses import dataclass

from vllm_sgl.families import FAMILIES


@dataclass(frozen=True)
class Series:
    """Models that cut images alike, so that any of them may guide any larger one.

    architecture: as in their ``config.json``. small, large: sizes to choose from.
    """

    architecture: str
    name: str
    small: str
    large: str


_EVERY = (
    Series("InternVLChatModel", "InternVL2", "1B, 2B, 4B, 8B", "26B, 40B, Llama3-76B"),
    Series("InternVLChatModel", "InternVL2.5", "1B, 2B, 4B, 8B", "26B, 38B, 78B"),
    Series("InternVLChatModel", "InternVL3", "1B, 2B, 8B", "38B, 78B"),
    Series("InternVLChatModel", "InternVL3.5", "1B, 2B, 4B, 8B", "14B, 38B, 30B-A3B, 241B-A28B"),
    Series("InternVLForConditionalGeneration", "InternVL3 (-hf)", "1B, 2B, 8B", "38B, 78B"),
    Series(
        "InternVLForConditionalGeneration",
        "InternVL3.5 (-HF)",
        "1B, 2B, 4B, 8B",
        "14B, 38B, 30B-A3B, 241B-A28B",
    ),
    Series("InternS1ForConditionalGeneration", "Intern-S1", "mini (8B)", "241B-A28B"),
    Series("Qwen2VLForConditionalGeneration", "Qwen2-VL", "2B, 7B", "72B"),
    Series("Qwen2_5_VLForConditionalGeneration", "Qwen2.5-VL", "3B, 7B", "32B, 72B"),
    Series("Qwen3VLForConditionalGeneration", "Qwen3-VL", "2B, 4B, 8B", "32B"),
    Series("Qwen3VLMoeForConditionalGeneration", "Qwen3-VL MoE", "Qwen3-VL 2B, 4B, 8B", "30B-A3B, 235B-A22B"),
    Series("Qwen3_5ForConditionalGeneration", "Qwen3.5, 3.6", "0.8B, 2B, 4B", "9B, 27B"),
    Series(
        "Qwen3_5MoeForConditionalGeneration",
        "Qwen3.5, 3.6 MoE",
        "Qwen3.5 0.8B, 2B, 4B",
        "35B-A3B, 122B-A10B, 397B-A17B",
    ),
    Series(
        "Glm4vForConditionalGeneration", "GLM-4.1V, 4.6V-Flash", "Qwen3-VL 2B (crossed)", "9B, 4.6V-Flash"
    ),
    Series("Glm4vMoeForConditionalGeneration", "GLM-4.5V, 4.6V", "4.6V-Flash", "106B-A12B"),
    Series("LlavaOnevisionForConditionalGeneration", "LLaVA-OneVision", "0.5B, 7B", "72B"),
)

#: Those whose architecture has a family here.
SERIES = tuple(series for series in _EVERY if series.architecture in FAMILIES)

_NOTE = """\
Models of one series cut images alike and make pairs: over one prompt where tokenizer and chat template agree
too, else the small model gets a prompt of its own. Models of different series make crossed pairs: what the
small one saw is carried to where the large one's visual tokens lie. `vllm-sgl pairs SMALL LARGE` reads the
two models' files and tells."""


def table() -> str:
    """As Markdown."""
    rows = [("architecture", "series", "small, such as", "large, such as"), ("---",) * 4]
    rows += [(f"`{one.architecture}`", one.name, one.small, one.large) for one in SERIES]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n\n" + _NOTE
