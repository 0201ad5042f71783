"""The walk of a request: guide -> decide -> prune, over small protocols, so that fakes can stand in.

    render (vLLM)  ->  guide  ->  decide  ->  prune  ->  generate (vLLM)

Imports neither torch nor vLLM.
"""

import asyncio
import logging
import math
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
from vllm_sgl.decide.early_exit import answer_tokens, why_no_exit
from vllm_sgl.errors import GuideError, GuideFailedError, RequestAborted, Unguidable
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
        costs: of both models, to skip the guide if it does not pay; None guides every request.
        sees: gives the visual tokens of a request in the guide's model; None if as in the large model.
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
        start = time.monotonic()
        try:
            if self._costs is not None and self._sees is not None and request is not None and options.enabled:
                facts = replace(facts, seen_tokens=self._sees(request))
            reason = why_bypass(facts, options, self._costs, self._guide.context)
            if reason is not None or request is None:
                return Outcome(_report("bypass", facts, options, reason))
            outcome = await self._guided(request, facts, options)
        except RequestAborted:
            raise
        except Unguidable as error:
            return Outcome(_report("bypass", facts, options, error.reason))
        except (Exception, asyncio.CancelledError) as raised:
            # Guides, wrappers, layouts and policies are many, and some are a user's: any may raise anything.
            if request is None or _is_cancelled(raised):
                raise
            failed = _as_failure(raised)
            # What the guide refuses is the request's fault, or none at all.
            fails = self._config.on_error == "fail" and failed.reason != Reason.GUIDE_REFUSED
            _log(request, failed, "fails" if fails else "goes unguided")
            if fails:
                raise GuideFailedError(f"the guide failed ({failed.reason}): {failed}") from raised
            outcome = Outcome(_report("bypass", facts, options, failed.reason))
        outcome.report.guide_seconds = time.monotonic() - start
        # A shadow decides and reports, and has no effect.
        return Outcome(outcome.report) if self._config.shadow else outcome

    async def _guided(self, request: GuideRequest, facts: Facts, options: RequestOptions) -> Outcome:
        threshold = options.exit_threshold
        tokens = answer_tokens(facts, threshold, options.query_rows, options.guide_tokens)
        result = await self._guide.look(request, tokens)
        _check(request, result)
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
        report.consistency = _checked(await self._guide.confirm(request, result, share))
        report.score = score.exit_score(score.confidence(result.answer.logprobs), report.consistency)
        return None if report.score >= threshold else Reason.LOW_SCORE


def _check(request: GuideRequest, result: GuideResult) -> None:
    """A mask of what is no number would be a wrong one, and no client could read the report."""
    for item, importance in zip(request.items, result.importance, strict=True):
        if len(importance) != item.visual_tokens or not importance.isfinite().all():
            raise GuideError(
                Reason.GUIDE_FAILED,
                f"expected the importance of {item.visual_tokens} visual tokens, finite numbers; received "
                f"{len(importance)}, {int(importance.isfinite().sum())} of them finite",
            )
    if not all(map(math.isfinite, result.answer.logprobs)):
        raise GuideError(
            Reason.GUIDE_FAILED,
            f"expected finite log-probabilities of the answer, received {list(result.answer.logprobs)}",
        )


def _checked(consistency: float) -> float:
    if not math.isfinite(consistency):
        raise GuideError(Reason.GUIDE_FAILED, f"expected a finite consistency, received {consistency}")
    return consistency


def _is_cancelled(raised: BaseException) -> bool:
    """Whether the request was cancelled, and not merely something that its guide waited for."""
    task = asyncio.current_task()
    return isinstance(raised, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _as_failure(raised: BaseException) -> GuideError:
    if isinstance(raised, GuideError):
        return raised
    logger.debug("SGL: a guide raised an unexpected error", exc_info=raised)
    return GuideError(Reason.GUIDE_FAILED, f"{type(raised).__name__}: {raised}")


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
