"""The walk of a request: guide -> decide -> prune, over small protocols, so that fakes can stand in.

    render (vLLM)  ->  guide  ->  decide  ->  prune  ->  generate (vLLM)

Imports neither torch nor vLLM.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vllm_sgl.config import SGLConfig
from vllm_sgl.core import (
    Decision,
    Facts,
    GuideRequest,
    GuideResult,
    Kept,
    Outcome,
    Reason,
    RenderedPrompt,
    Report,
    Seen,
)
from vllm_sgl.decide import score
from vllm_sgl.decide.bypass import why_bypass
from vllm_sgl.decide.early_exit import may_exit, why_no_exit
from vllm_sgl.errors import GuideError, GuideFailedError, Unguidable
from vllm_sgl.request.options import RequestOptions

if TYPE_CHECKING:
    from vllm_sgl.decide.costs import Costs
    from vllm_sgl.guide.base import Guide
    from vllm_sgl.prune.base import Policy

logger = logging.getLogger("vllm.vllm_sgl.pipeline")

#: Rewrites a rendered prompt so that only kept visual tokens are left; see :mod:`vllm_sgl.prune.rewrite`.
Rewriter = Callable[[RenderedPrompt, Kept], RenderedPrompt]


class Pipeline:
    """Walks requests, any number at once; holds no state of its own.

    Args:
        policies: gives the policy of a name.
        costs: of both models, so that requests are left alone whose guidance does not pay; None guides all.
        sees: visual tokens of a request that the guide's model is given; None for the large model's.
    """

    def __init__(
        self,
        config: SGLConfig,
        guide: "Guide",
        policies: "Callable[[str], Policy]",
        rewrite: Rewriter,
        costs: "Costs | None" = None,
        sees: "Callable[[GuideRequest], int] | None" = None,
    ) -> None:
        self._config = config
        self._guide = guide
        self._policies = policies
        self._rewrite = rewrite
        self._costs = costs
        self._sees = sees

    async def walk(self, request: GuideRequest | None, facts: Facts, options: RequestOptions) -> Outcome:
        """Decide what happens to one request.

        Args:
            request: None only where ``facts.bypass`` says so.

        Raises:
            GuideFailedError: under ``on_error="fail"``, when the guide fails.
            RequestAborted: when the request was aborted by its id.
        """
        if self._costs is not None and self._sees is not None and request is not None and options.enabled:
            facts = replace(facts, seen_tokens=self._sees(request))
        reason = why_bypass(facts, options, self._costs, self._guide.context)
        if reason is not None or request is None:
            return Outcome(_report("bypass", facts, options, reason))
        start = time.monotonic()
        try:
            outcome = await self._guided(request, facts, options)
        except Unguidable as error:
            return Outcome(_report("bypass", facts, options, error.reason))
        except GuideError as error:
            # What the guide refuses is the request's fault, or none at all.
            fails = self._config.on_error == "fail" and error.reason != Reason.GUIDE_REFUSED
            _log(request, error, "fails" if fails else "goes unguided")
            if fails:
                raise GuideFailedError(f"the guide failed ({error.reason}): {error}") from error
            outcome = Outcome(_report("bypass", facts, options, error.reason))
        outcome.report.guide_seconds = time.monotonic() - start
        # A shadow decides and reports, and has no effect.
        return Outcome(outcome.report) if self._config.shadow else outcome

    async def _guided(self, request: GuideRequest, facts: Facts, options: RequestOptions) -> Outcome:
        threshold = options.exit_threshold
        # Without an exit the answer is of use only for its query rows.
        whole = may_exit(facts, threshold) or options.query_rows.endswith("generated")
        result = await self._guide.look(request, options.guide_tokens if whole else 1)
        report = _report("prune", facts, options)
        report.confidence = score.confidence(result.answer.logprobs)
        report.importance, report.answer = result.importance, result.answer
        if threshold is not None:
            report.reason = await self._why_no_exit(request, facts, result, report, threshold)
            if report.reason is None:
                report.decision, report.kept_tokens, report.encoded_tiles = "exit", 0, 0
                return Outcome(report, answer=result.answer)
        seen = [Seen(*pair) for pair in zip(request.items, result.importance, strict=True)]
        # A retention of 1 never prunes, whatever the policy: `tiles` would leave some closed.
        name = options.policy if options.retention < 1 else "top"
        kept = self._policies(name).select(seen, options.retention)
        report.kept, report.kept_tokens = kept, sum(len(indices) for indices in kept)
        pairs = zip(request.items, kept, strict=True)
        report.encoded_tiles = sum(len(item.open_tiles(indices)) for item, indices in pairs)
        if report.kept_tokens == report.visual_tokens:
            return Outcome(report)
        return Outcome(report, prompt=self._rewrite(request.prompt, kept), max_tokens=facts.max_tokens)

    async def _why_no_exit(
        self, request: GuideRequest, facts: Facts, result: GuideResult, report: Report, threshold: float
    ) -> str | None:
        """The reason, or None for an exit; the second pass runs only where it can make a difference."""
        reason = why_no_exit(facts, result.answer, threshold)
        if reason is not None:
            return reason
        share = self._config.consistency_retention
        report.consistency = await self._guide.confirm(request, result, share)
        report.score = score.exit_score(score.confidence(result.answer.logprobs), report.consistency)
        return None if report.score >= threshold else Reason.LOW_SCORE


#: The others are states of the guide, and logged where they begin and end.
_LEVELS = {
    Reason.GUIDE_FAILED: logging.ERROR,
    Reason.GUIDE_TIMEOUT: logging.WARNING,
    Reason.GUIDE_REFUSED: logging.INFO,
}


def _log(request: GuideRequest, error: GuideError, becomes: str) -> None:
    level = _LEVELS.get(error.reason, logging.DEBUG)
    logger.log(level, "SGL: request %s %s (%s): %s", request.id, becomes, error.reason, error)


def _report(decision: Decision, facts: Facts, options: RequestOptions, reason: str | None = None) -> Report:
    total = sum(facts.visual_tokens)
    return Report(
        decision, reason, visual_tokens=total, kept_tokens=total, tiles=facts.tiles,
        encoded_tiles=facts.tiles, profile=options.profile,
    )  # fmt: skip
