"""The walk of a request: guide -> decide -> prune, over small protocols, so that fakes can stand in.

    render (vLLM)  ->  guide  ->  decide  ->  prune  ->  generate (vLLM)

Imports neither torch nor vLLM.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from vllm_sgl.break_even import Costs
from vllm_sgl.config import RequestOptions, SGLConfig
from vllm_sgl.decision import (
    Bypass,
    Decision,
    Exit,
    Facts,
    Prune,
    Reason,
    Report,
    may_exit,
    why_bypass,
    why_no_exit,
)
from vllm_sgl.errors import GuideError, GuideFailedError
from vllm_sgl.guide.score import exit_score

if TYPE_CHECKING:
    import torch

    from vllm_sgl.guide.result import Answer, GuideResult

logger = logging.getLogger("vllm.vllm_sgl.pipeline")


class Guide(Protocol):
    """A small model; see :class:`vllm_sgl.guide.small.SmallModelGuide`."""

    @property
    def context(self) -> int: ...

    async def look(self, request: Any, guide_tokens: int) -> "GuideResult": ...

    async def consistency(self, id: str, prompt: Any, answer: "Answer", priority: int = 0) -> float: ...


class Policy(Protocol):
    """Which visual tokens to keep; see :mod:`vllm_sgl.prune.top_importance`."""

    def select(self, importance: "Sequence[torch.Tensor]", retention: float) -> "list[torch.Tensor]": ...


class Rewriter(Protocol):
    """Rewrites rendered prompts; see :mod:`vllm_sgl.prune.rewrite`."""

    def tag_images(self, prompt: Any) -> Any: ...

    def prune_prompt(self, prompt: Any, kept: "Sequence[torch.Tensor]") -> Any: ...


@dataclass(frozen=True)
class Outcome:
    """decision and its report; prompt: what the large model is to be given, None for what came;
    max_tokens: the room that the unpruned prompt leaves for an answer."""

    decision: Decision
    report: Report
    prompt: Any
    max_tokens: int | None = None


class Pipeline:
    """Walks requests, any number at once; holds no state of its own.

    Args:
        costs: of both models, so that requests are left alone whose guidance does not pay; None guides all.
    """

    def __init__(
        self, config: SGLConfig, guide: Guide, policy: Policy, rewriter: Rewriter, costs: Costs | None = None
    ) -> None:
        self._config = config
        self._guide = guide
        self._policy = policy
        self._rewriter = rewriter
        self._costs = costs

    async def walk(self, request: Any, facts: Facts, options: RequestOptions) -> Outcome:
        """Decide what happens to one request.

        Args:
            request: a :class:`vllm_sgl.guide.small.GuideRequest`; None where ``facts.bypass`` says so.

        Raises:
            GuideFailedError: under ``on_error="fail"``, when the guide fails.
        """
        prompt = request.prompt if request is not None else None
        reason = why_bypass(
            facts,
            retention=options.retention,
            exit_threshold=options.exit_threshold,
            enabled=bool(options.enabled),
            small_context=self._guide.context,
        )
        if reason is None and not self._pays(facts, options):
            reason = Reason.BREAK_EVEN
        if reason is not None:
            return Outcome(Bypass(reason), _report("bypass", facts, reason), prompt)
        start = time.monotonic()
        try:
            outcome = await self._guided(request, facts, options)
        except GuideError as error:
            if self._config.on_error == "fail":
                raise GuideFailedError(f"the guide failed ({error.reason}): {error}") from error
            logger.error("SGL: request %s falls back to the large model alone: %s", request.id, error)
            outcome = Outcome(Bypass(error.reason), _report("bypass", facts, error.reason), prompt)
        outcome.report.guide_seconds = time.monotonic() - start
        return replace(outcome, prompt=prompt) if self._config.shadow else outcome

    def _pays(self, facts: Facts, options: RequestOptions) -> bool:
        exit_possible = may_exit(facts, options.exit_threshold)
        return self._costs is None or self._costs.pays(
            facts, options.retention, exit_possible, options.guide_tokens
        )

    async def _guided(self, request: Any, facts: Facts, options: RequestOptions) -> Outcome:
        tagged = replace(request, prompt=self._rewriter.tag_images(request.prompt))
        threshold = options.exit_threshold
        # Without an exit the answer is of use only for its query rows.
        whole = may_exit(facts, threshold) or options.query_rows.endswith("generated")
        tokens = options.guide_tokens if whole else 1
        result = await self._guide.look(tagged, tokens)
        report = _report("prune", facts)
        report.confidence, report.importance = result.confidence, result.importance
        if threshold is not None:
            report.reason = why_no_exit(facts, result, threshold)
            if report.reason is None:
                await self._score(tagged, result, report)
                if report.score >= threshold:
                    report.decision, report.kept_tokens = "exit", 0
                    return Outcome(Exit(result.answer), report, request.prompt)
                report.reason = Reason.LOW_SCORE
        kept = self._policy.select(result.importance, options.retention)
        report.kept, report.kept_tokens = kept, sum(len(indices) for indices in kept)
        everything = report.kept_tokens == report.visual_tokens
        pruned = request.prompt if everything else self._rewriter.prune_prompt(request.prompt, kept)
        return Outcome(Prune(kept, report.reason), report, pruned, facts.max_tokens)

    async def _score(self, request: Any, result: "GuideResult", report: Report) -> None:
        few = self._policy.select(result.importance, self._config.consistency_retention)
        shown = self._rewriter.prune_prompt(request.prompt, few)
        report.consistency = await self._guide.consistency(request.id, shown, result.answer, request.priority)
        report.score = exit_score(result.confidence, report.consistency)


def _report(decision: str, facts: Facts, reason: str | None = None) -> Report:
    total = sum(facts.visual_tokens)
    return Report(decision, reason, visual_tokens=total, kept_tokens=total)
