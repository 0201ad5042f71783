"""Decides which requests skip the guide, and why, in a fixed order."""

from vllm_sgl.core import Facts, Reason
from vllm_sgl.decide.costs import Costs
from vllm_sgl.decide.early_exit import answer_tokens, may_exit
from vllm_sgl.request.options import RequestOptions


def why_bypass(facts: Facts, options: RequestOptions) -> str | None:
    """The reason why a request skips the guide, whatever is known of its images, or None."""
    if facts.bypass is not None:
        return facts.bypass
    if not options.enabled:
        return Reason.DISABLED
    if not sum(facts.visual_tokens):
        return Reason.NO_IMAGE
    if options.retention == 1 and not may_exit(facts, options.exit_threshold):
        return Reason.NOTHING_TO_DO
    return None


def why_no_look(facts: Facts, options: RequestOptions, costs: Costs | None, context: int) -> str | None:
    """The reason not to ask the guide about a request, or None.

    Args:
        costs: of both models' passes; None asks whatever it costs.
        context: the most tokens that the guide can take: the prompt, an answer of at least one token, and
            one more for the consistency pass.
    """
    if facts.prompt_tokens + 2 > context:
        return Reason.TOO_LONG
    exit_possible = may_exit(facts, options.exit_threshold)
    tokens = answer_tokens(facts, options.exit_threshold, options.query_rows, options.guide_tokens)
    if costs is not None and not costs.pays(facts, options.retention, exit_possible, tokens):
        return Reason.BREAK_EVEN
    return None
