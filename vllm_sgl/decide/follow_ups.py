"""Follow-ups: requests about images that the large model was given lately, and what they keep of them.

``sticky`` keeps what was kept then, and spares the guide; ``late`` has the guide look at the new question and
adds the visual tokens that this one needs and that are missing. ``auto`` is ``sticky`` where an old mask
serves a new question as well as its own within a standard error (docs/evidence.md), and ``late`` below.

A *hot image* is one that many separate questions are asked about: from some number of looks on it is sent
unpruned, which fills the prefix cache once and costs later questions what they cost without a guide.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from vllm_sgl.core import Facts, GuideRequest, RenderedPrompt
from vllm_sgl.decide.early_exit import answer_tokens, may_exit
from vllm_sgl.prune.memory import Memory, Plan, Recalled

if TYPE_CHECKING:
    from vllm_sgl.config import SGLConfig
    from vllm_sgl.decide.costs import Costs
    from vllm_sgl.request.options import RequestOptions

#: The least retention at which an old mask is as good as a new one.
STICKY_FROM = 0.35
#: Looks at one image before it counts as hot, where costs do not tell.
HOT_AFTER = 2


def mode(options: "RequestOptions | SGLConfig") -> Literal["late", "sticky", "off"]:
    """What the follow-ups of a request, or of a server's own settings, are."""
    if options.follow_ups != "auto":
        return options.follow_ups
    return "sticky" if options.retention >= STICKY_FROM else "late"


class FollowUps:
    """What is known of a request's images, and what becomes of it.

    Args:
        block_size: tokens of a block of the large engine's prefix cache.
        last_turn: where the last user turn of a rendered conversation begins, None where that is unknown.
        hot_after: looks at separate questions about an image before it is sent unpruned; None for never,
            "auto" where they cost as much as the unpruned image (the rule of ski rental: it pays at most
            twice what was best in hindsight).
    """

    def __init__(
        self, memory: Memory, block_size: int, last_turn: Callable[[RenderedPrompt], int | None],
        hot_after: int | Literal["auto"] | None = "auto", costs: "Costs | None" = None,
    ) -> None:  # fmt: skip
        self._memory = memory
        self._block_size = block_size
        self._last_turn = last_turn
        self._hot_after = hot_after
        self._costs = costs
        #: Requests about images of which nothing is known yet, and what those wait for that follow.
        self._deciding: dict[bytes, tuple[GuideRequest, asyncio.Event]] = {}

    async def recall(self, request: GuideRequest, facts: Facts, options: "RequestOptions") -> Recalled | None:
        """What the large model was given of the beginning of a request, or is to be given now that its image
        is hot; None where nothing is known, or what is known fills no block of the prefix cache, so that
        nothing of it can be reused. A request that would keep what another one is about to decide
        waits for that one. :meth:`decided` must follow."""
        if mode(options) == "off":
            return None
        settings = _settings(request, options)
        recalled = self._memory.recall(request, settings)
        if recalled is None and mode(options) == "sticky" and not may_exit(facts, options.exit_threshold):
            key = self._memory.images_key(request, settings)
            while recalled is None and key in self._deciding:
                await self._deciding[key][1].wait()
                recalled = self._memory.recall(request, settings)
            if recalled is None:
                self._deciding[key] = request, asyncio.Event()
        if recalled is None:
            self._memory.look(request)
            return None
        cached = self._cached_at_most(_given_tokens(recalled, request))
        if recalled.plan.whole:
            return recalled if cached else None
        separate = not recalled.follows and covers(recalled, request)
        hot = separate and self._memory.look(request) > self._looks_before_hot(facts, options)
        if hot and self._cached_at_most(recalled.length):
            return replace(recalled, plan=Plan((None,) * len(request.items)), key=b"")
        if not cached:
            return None
        if mode(options) == "sticky":
            return recalled
        return self._with_place(request, recalled)

    def decided(self, request: GuideRequest, options: "RequestOptions") -> None:
        """Let requests go on that wait for what this one is given."""
        if not self._deciding:
            return
        key = self._memory.images_key(request, _settings(request, options))
        if key in self._deciding and self._deciding[key][0] is request:
            self._deciding.pop(key)[1].set()

    def _with_place(self, request: GuideRequest, recalled: Recalled) -> Recalled | None:
        """With where late tokens may stand: directly before the new question, behind all that is known. None
        where nobody can tell, as an old mask alone would not do."""
        if recalled.length == len(request.prompt["prompt_token_ids"]):
            return recalled  # the same question
        start = self._last_turn(request.prompt)
        if start is None and recalled.follows:
            return None
        at = max(start or 0, recalled.images_end)
        return recalled if at < recalled.length else replace(recalled, at=at)

    def remember(self, request: GuideRequest, options: "RequestOptions", plan: Plan) -> None:
        """Note what the large model is given."""
        if mode(options) != "off":
            self._memory.remember(request, _settings(request, options), plan)

    def heard(self, recalled: Recalled, request: GuideRequest) -> Callable[[int], None]:
        """Takes how many tokens of a request the prefix cache had, and forgets what it has no longer."""
        expected = self._cached_at_most(_given_tokens(recalled, request))

        def heard(cached: int) -> None:
            if 2 * cached < expected:  # less while another request still computes them
                self._memory.forget(recalled)

        return heard

    def _cached_at_most(self, given: int) -> int:
        """How many of the first tokens of a prompt its prefix cache can hold: whole blocks of them."""
        return (given - 1) // self._block_size * self._block_size

    def _looks_before_hot(self, facts: Facts, options: "RequestOptions") -> float:
        if isinstance(self._hot_after, int):
            return self._hot_after
        if self._hot_after is None or mode(options) == "sticky":  # no look is to be saved
            return math.inf
        if self._costs is None:
            return HOT_AFTER
        seen = (
            self._costs.seen_tokens(sum(facts.visual_tokens))
            if facts.seen_tokens is None
            else facts.seen_tokens
        )
        tokens = answer_tokens(facts, options.exit_threshold, options.query_rows, options.guide_tokens)
        look = self._costs.guidance(seen, min(tokens, facts.max_tokens or tokens))
        return max(HOT_AFTER, self._costs.large_prefill(facts.prompt_tokens) / look)


def covers(recalled: Recalled | None, request: GuideRequest) -> bool:
    """Whether every image and video of a request is known."""
    return recalled is not None and len(recalled.plan.kept) == len(request.items)


def _given_tokens(recalled: Recalled, request: GuideRequest) -> int:
    """How many tokens the large model was given of a known beginning."""
    known = zip(request.items, recalled.plan.kept, strict=False)  # later items are new
    dropped = sum(item.visual_tokens - len(kept) for item, kept in known if kept is not None)
    return recalled.length - dropped + sum(len(one.indices) for one in recalled.plan.late)


def _settings(request: GuideRequest, options: "RequestOptions") -> tuple[object, ...]:
    return options.retention, options.policy, request.query_rows
