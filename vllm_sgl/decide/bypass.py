"""Who is left to the large model alone. One place, one order of reasons."""

from vllm_sgl.core import Facts, Reason
from vllm_sgl.decide.costs import Costs
from vllm_sgl.decide.early_exit import may_exit
from vllm_sgl.request.options import RequestOptions


def why_bypass(facts: Facts, options: RequestOptions, costs: Costs | None, context: int) -> str | None:
    """The reason to leave a request to the large model alone, or None.

    Args:
        costs: of both models' passes; None guides requests whatever it costs.
        context: the most tokens that the guide can take: the prompt, an answer of at least one token, and
            one more for the consistency pass.
    """
    if facts.bypass is not None:
        return facts.bypass
    if not options.enabled:
        return Reason.DISABLED
    if not sum(facts.visual_tokens):
        return Reason.NO_IMAGE
    exit_possible = may_exit(facts, options.exit_threshold)
    if options.retention == 1 and not exit_possible:
        return Reason.NOTHING_TO_DO
    if facts.prompt_tokens + 2 > context:
        return Reason.TOO_LONG
    if costs is not None and not costs.pays(facts, options.retention, exit_possible, options.guide_tokens):
        return Reason.BREAK_EVEN
    return None
