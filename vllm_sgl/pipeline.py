"""The walk of a request: guide -> decide -> prune, over small protocols, so that fakes can stand in.

    render (vLLM)  ->  guide  ->  decide  ->  prune  ->  generate (vLLM)

Imports neither torch nor vLLM.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from vllm_sgl.config import SGLConfig
from vllm_sgl.core import (
    Decision,
    Facts,
    GuideRequest,
    GuideResult,
    Kept,
    Late,
    Outcome,
    Reason,
    RenderedPrompt,
    Report,
    Seen,
)
from vllm_sgl.decide.bypass import why_bypass, why_no_look
from vllm_sgl.decide.early_exit import answer_tokens, may_exit, why_no_exit
from vllm_sgl.decide.follow_ups import covers
from vllm_sgl.decide.scores.parts import confidence
from vllm_sgl.decide.scores.registry import SCORES
from vllm_sgl.errors import GuideError, GuideFailedError, RequestAborted, Unguidable
from vllm_sgl.guide.checks import check_result, finite
from vllm_sgl.prune.memory import Plan, Recalled, indices_of
from vllm_sgl.request.options import RequestOptions

if TYPE_CHECKING:
    import torch

    from vllm_sgl.decide.costs import Costs
    from vllm_sgl.decide.follow_ups import FollowUps
    from vllm_sgl.guide.base import Guide
    from vllm_sgl.prune.base import Policy

logger = logging.getLogger("vllm.vllm_sgl.pipeline")


class Rewriter(Protocol):
    """Leaves a rendered prompt only its kept and late visual tokens; see :mod:`vllm_sgl.prune.late`."""

    def __call__(self, prompt: RenderedPrompt, kept: Kept, late: Sequence[Late], /) -> RenderedPrompt: ...


class Pipeline:
    """Walks requests, any number at once; holds no state of its own but what it is given to remember.

    Args:
        policies: gives the policy of a name.
        costs: of both models, to skip the guide if it does not pay; None guides every request.
        sees: gives the visual tokens of a request in the guide's model; None if as in the large model.
        follow_ups: what the large model was given of earlier images; None decides each request by itself.
    """

    def __init__(
        self,
        config: SGLConfig,
        guide: "Guide",
        policies: "Callable[[str], Policy]",
        rewrite: Rewriter,
        costs: "Costs | None" = None,
        sees: "Callable[[GuideRequest], int] | None" = None,
        follow_ups: "FollowUps | None" = None,
    ) -> None:
        self._config = config
        self._guide = guide
        self._policies = policies
        self._rewrite = rewrite
        self._costs = costs
        self._sees = sees
        self._follow_ups = follow_ups

    async def walk(self, request: GuideRequest | None, facts: Facts, options: RequestOptions) -> Outcome:
        """Decide what happens to one request.

        Args:
            request: None only where ``facts.bypass`` says so.

        Raises:
            GuideFailedError: under ``on_error="fail"``, when the guide fails.
            RequestAborted: when the request was aborted by its id.
        """
        reason = why_bypass(facts, options)
        if request is None:
            return Outcome(_report("bypass", facts, options, reason))
        # A shadow decides and reports, and has no effect.
        follow_ups = None if self._config.shadow else self._follow_ups
        try:
            outcome = Outcome(_report("bypass", facts, options, reason))
            if reason is None:
                outcome = await self._decide(request, facts, options, follow_ups)
            if follow_ups is not None and outcome.answer is None:
                follow_ups.remember(request, options, _plan(request, outcome.report))
        finally:
            if follow_ups is not None:
                follow_ups.decided(request, options)
        return Outcome(outcome.report) if self._config.shadow else outcome

    async def _decide(
        self, request: GuideRequest, facts: Facts, options: RequestOptions, follow_ups: "FollowUps | None"
    ) -> Outcome:
        start, recalled = time.monotonic(), None
        try:
            if self._costs is not None and self._sees is not None:
                facts = replace(facts, seen_tokens=self._sees(request))
            if follow_ups is not None:
                recalled = await follow_ups.recall(request, facts, options)
            if recalled is not None:
                known, cached = len(recalled.plan.kept), recalled.length if recalled.key else 0
                facts = replace(facts, known_items=known, known_tokens=cached)
            wants_late = recalled is not None and recalled.at is not None
            if covers(recalled, request) and not wants_late and not may_exit(facts, options.exit_threshold):
                return self._again(request, facts, options, recalled)
            # Late tokens save nothing: they are asked for because the question needs them.
            costs = None if wants_late else self._costs
            reason = why_no_look(facts, options, costs, self._guide.context)
            if reason is not None:
                spared = reason == Reason.BREAK_EVEN and covers(recalled, request)
                return self._again(request, facts, options, recalled, None if spared else reason)
            outcome = await self._guided(request, facts, options, recalled)
        except RequestAborted:
            raise
        except Unguidable as error:
            return self._again(request, facts, options, recalled, error.reason)
        except (Exception, asyncio.CancelledError) as raised:
            # Guides, wrappers, layouts and policies are many, and some are a user's: any may raise anything.
            if _is_cancelled(raised):
                raise
            failed = _as_failure(raised)
            # What the guide refuses is the request's fault, or none at all.
            fails = self._config.on_error == "fail" and failed.reason != Reason.GUIDE_REFUSED
            _log(request, failed, "fails" if fails else "goes unguided")
            if fails:
                raise GuideFailedError(f"the guide failed ({failed.reason}): {failed}") from raised
            outcome = self._again(request, facts, options, recalled, failed.reason)
        outcome.report.guide_seconds = time.monotonic() - start
        return outcome

    def _again(
        self, request: GuideRequest, facts: Facts, options: RequestOptions, recalled: Recalled | None,
        reason: str | None = None,
    ) -> Outcome:  # fmt: skip
        """Without a look: known images as they were given before, new ones whole."""
        if recalled is None:
            return Outcome(_report("bypass", facts, options, reason))
        if reason is None:
            hot = recalled.plan.whole and not recalled.follows
            reason = Reason.HOT_IMAGE if hot else Reason.FOLLOW_UP
        report = _report("bypass" if recalled.plan.whole else "prune", facts, options, reason)
        new = request.items[len(recalled.plan.kept) :]
        return self._given(request, facts, report, recalled, [None] * len(new))

    async def _guided(
        self, request: GuideRequest, facts: Facts, options: RequestOptions, recalled: Recalled | None
    ) -> Outcome:
        threshold = options.exit_threshold
        tokens = answer_tokens(facts, threshold, options.query_rows, options.guide_tokens)
        result = await self._guide.look(request, tokens)
        check_result(request, result)
        report = _report("prune", facts, options)
        report.confidence = confidence(result.answer.logprobs)
        report.importance, report.answer = result.importance, result.answer
        if threshold is not None:
            report.reason = await self._why_no_exit(request, facts, options, result, report)
            if report.reason is None:
                report.decision, report.kept_tokens, report.encoded_tiles = "exit", 0, 0
                return Outcome(report, answer=result.answer)
        seen = [Seen(*pair) for pair in zip(request.items, result.importance, strict=True)]
        new = seen[facts.known_items :]
        # A retention of 1 never prunes, whatever the policy: `tiles` would leave some closed.
        name = options.policy if options.retention < 1 else "top"
        kept = self._policies(name).select(new, options.retention) if new else ()
        late: Sequence[Late] = ()
        if recalled is not None and recalled.at is not None:
            from vllm_sgl.prune.needed import late_tokens  # loads torch

            known = indices_of(request.items[: facts.known_items], recalled.plan.kept)
            late = late_tokens(
                seen[: facts.known_items], known, recalled.plan.late, recalled.at, options.retention
            )
        if covers(recalled, request) and report.reason is None:
            report.reason = Reason.FOLLOW_UP
        return self._given(request, facts, report, recalled, kept, late)

    def _given(
        self, request: GuideRequest, facts: Facts, report: Report, recalled: Recalled | None,
        new: "Sequence[torch.Tensor | None]", late: Sequence[Late] = (),
    ) -> Outcome:  # fmt: skip
        """What the large model is given: known images as before with these late tokens, and these indices of
        new images."""
        plan = Plan(()) if recalled is None else recalled.plan
        report.kept = kept = indices_of(request.items, (*plan.kept, *new))
        report.late = (*plan.late, *late)
        report.late_tokens = _count(late)
        report.kept_tokens = sum(len(indices) for indices in kept) + _count(report.late)
        known = sum(len(indices) for indices in kept[: len(plan.kept)]) + _count(plan.late)
        report.encoded_tiles = sum(
            len(item.open_tiles(indices))
            for item, indices in zip(request.items, report.in_all(), strict=True)
        )
        heard = None
        if recalled is not None and recalled.key and self._follow_ups is not None:
            report.reused_tokens = known
            heard = self._follow_ups.heard(recalled, request)
        if sum(len(indices) for indices in kept) == report.visual_tokens:
            return Outcome(report, heard=heard)
        pruned = self._rewrite(request.prompt, kept, report.late)
        return Outcome(report, prompt=pruned, max_tokens=facts.max_tokens, heard=heard)

    async def _why_no_exit(
        self,
        request: GuideRequest,
        facts: Facts,
        options: RequestOptions,
        result: GuideResult,
        report: Report,
    ) -> str | None:
        """The reason, or None for an exit; the second pass runs only where the score needs it and it can make
        a difference."""
        threshold, score = options.exit_threshold, SCORES[options.exit_score]
        assert threshold is not None
        reason = why_no_exit(facts, result.answer, threshold, score)
        if reason is not None:
            return reason
        consistency = 0.0
        if score.needs_consistency:
            share = self._config.consistency_retention
            consistency = finite("consistency", await self._guide.confirm(request, result, share))
            report.consistency = consistency
        report.score = score.of(result.answer.logprobs, consistency)
        return None if report.score >= threshold else Reason.LOW_SCORE


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


def _plan(request: GuideRequest, report: Report) -> Plan:
    """What is to be remembered of what the large model is given."""
    if report.kept is None:
        return Plan((None,) * len(request.items))
    pairs = zip(request.items, report.kept, strict=True)
    kept = tuple(None if len(kept) == item.visual_tokens else kept for item, kept in pairs)
    return Plan(kept, tuple(report.late))


def _count(late: Sequence[Late]) -> int:
    return sum(len(one.indices) for one in late)
