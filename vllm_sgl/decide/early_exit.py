"""Whether the small model's answer is the response (arXiv 2412.03324, section 3.3)."""

from vllm_sgl.core import Answer, Facts, Reason
from vllm_sgl.decide.scores.base import Score

#: Tokens of an answer that is of use for its query rows alone. Rows of the prompt rank the most; a longer
#: answer would keep the first token of the large model's waiting.
ROW_TOKENS = 8


def may_exit(facts: Facts, threshold: float | None) -> bool:
    """Whether a threshold is set and the request allows an exit."""
    return threshold is not None and facts.no_exit is None


def answer_tokens(facts: Facts, threshold: float | None, query_rows: str, guide_tokens: int) -> int:
    """The most tokens that the guide has to generate.

    Args:
        query_rows, guide_tokens: the settings of that name.
    """
    if may_exit(facts, threshold):
        return guide_tokens
    return min(guide_tokens, ROW_TOKENS) if query_rows.endswith("generated") else 1


def why_no_exit(facts: Facts, answer: Answer, threshold: float, score: Score) -> str | None:
    """The reason why no score is worth computing, or None where an exit is still possible.

    A consistency of 1 bounds the score from above, so the second pass may be spared.
    """
    if facts.no_exit is not None:
        return facts.no_exit
    if not answer.finished:
        return Reason.UNFINISHED
    if _ends_too_soon(answer, facts.forced_tokens):
        return Reason.FORCED_LENGTH
    if facts.is_content is not None and not facts.is_content(answer.text, answer.token_ids):
        return Reason.REASONING
    if score.needs_consistency and score.of(answer.logprobs, 1.0) < threshold:
        return Reason.LOW_CONFIDENCE
    return None


def _ends_too_soon(answer: Answer, forced_tokens: int) -> bool:
    """Whether the answer stopped before the forced minimum length."""
    return 0 < forced_tokens >= len(answer.token_ids) and answer.finish_reason == "stop"
