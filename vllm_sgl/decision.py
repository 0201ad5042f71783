"""What happens to a request, and the report that its client sees. Pure: no I/O, no torch, no vLLM."""

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from vllm_sgl.guide.result import Answer, GuideResult


class Reason:
    """Why a request was bypassed, or why it did not exit. These strings are part of the contract."""

    # bypass: the small model never runs
    DISABLED = "disabled"
    NO_IMAGE = "no_image"
    UNSUPPORTED_MODALITY = "unsupported_modality"
    IMAGE_EMBEDDINGS = "image_embeddings"
    PROMPT_LOGPROBS = "prompt_logprobs"
    BEAM_SEARCH = "beam_search"
    UNRENDERED_PROMPT = "unrendered_prompt"
    TOO_LONG = "too_long_for_small"
    NOTHING_TO_DO = "retention_1_without_exit"
    BREAK_EVEN = "below_break_even"
    # bypass: the small model failed
    GUIDE_FAILED = "guide_failed"
    GUIDE_DEAD = "guide_dead"
    GUIDE_TIMEOUT = "guide_timeout"
    # no exit: the request rules it out
    N = "n"
    LOGPROBS = "logprobs"
    TOOLS = "tools"
    STRUCTURED_OUTPUT = "structured_output"
    LORA = "lora"
    # no exit: the small model's answer does
    UNFINISHED = "unfinished"
    LOW_CONFIDENCE = "low_confidence"
    LOW_SCORE = "low_score"


@dataclass(frozen=True)
class Bypass:
    """The large model answers with every visual token."""

    reason: str


@dataclass(frozen=True)
class Exit:
    """The small model's answer is returned; the large model never runs."""

    answer: "Answer"


@dataclass(frozen=True)
class Prune:
    """The large model answers with the kept visual tokens only.

    kept: one ascending int64 tensor of kept indices per image, relative to the image's visual tokens.
    reason: why the request did not exit, where an exit was asked for.
    """

    kept: "list[torch.Tensor]"
    reason: str | None = None


Decision = Bypass | Exit | Prune


@dataclass(frozen=True)
class Facts:
    """What the decision needs to know of a request, read off it once.

    visual_tokens: number of visual tokens per image, in prompt order.
    prompt_tokens: length of the rendered prompt.
    max_tokens: the most tokens the request may generate, None for no limit.
    bypass: the reason to leave the request alone, if there is one.
    no_exit: the reason that rules an early exit out, if there is one.
    """

    visual_tokens: tuple[int, ...] = ()
    prompt_tokens: int = 0
    max_tokens: int | None = None
    bypass: str | None = None
    no_exit: str | None = None


@dataclass
class Report:
    """The ``sgl`` object of a response. Offline it also carries the two tensor lists."""

    decision: str
    reason: str | None = None
    visual_tokens: int = 0
    kept_tokens: int = 0
    score: float | None = None
    confidence: float | None = None
    consistency: float | None = None
    guide_seconds: float | None = None
    importance: "list[torch.Tensor] | None" = field(default=None, repr=False)
    kept: "list[torch.Tensor] | None" = field(default=None, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The values that go over the wire: everything but the tensors."""
        return {name: getattr(self, name) for name in WIRE_FIELDS}


WIRE_FIELDS = tuple(f.name for f in fields(Report) if f.name not in ("importance", "kept"))


def kept_count(retention: float, visual_tokens: int) -> int:
    """max(1, floor(retention * visual_tokens)), the product in floating point."""
    return max(1, math.floor(retention * visual_tokens))


def may_exit(facts: Facts, exit_threshold: float | None) -> bool:
    """Whether the small model's answer may be all there is."""
    return exit_threshold is not None and facts.no_exit is None


def why_bypass(
    facts: Facts, *, retention: float, exit_threshold: float | None, enabled: bool, small_context: int
) -> str | None:
    """The reason to leave a request to the large model alone, or None.

    small_context: the most tokens that the small model can take: the prompt, an answer of at least one
        token, and one more for the consistency pass.
    """
    if facts.bypass is not None:
        return facts.bypass
    if not enabled:
        return Reason.DISABLED
    if not sum(facts.visual_tokens):
        return Reason.NO_IMAGE
    if retention == 1 and not may_exit(facts, exit_threshold):
        return Reason.NOTHING_TO_DO
    if facts.prompt_tokens + 2 > small_context:
        return Reason.TOO_LONG
    return None


def why_no_exit(facts: Facts, result: "GuideResult", threshold: float) -> str | None:
    """The reason why no consistency pass is worth running, or None where an exit is still possible.

    The score is the mean of confidence and consistency, so a consistency of 1 bounds it from above.
    """
    if facts.no_exit is not None:
        return facts.no_exit
    if not result.answer.finished:
        return Reason.UNFINISHED
    if (result.confidence + 1.0) / 2 < threshold:
        return Reason.LOW_CONFIDENCE
    return None
