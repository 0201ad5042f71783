"""Limits how many looks run at once: as many as the guide can batch, and about as many again wait.

A look's timeout starts when it is admitted. If the queue is full, the request skips the guide at once. So a
request waits about as long as one batch takes, and an overload reaches the large model as fast as without a
guide.

Imports neither torch nor vLLM.
"""

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from math import ceil

from vllm_sgl.core import GuideRequest, GuideResult, Reason
from vllm_sgl.errors import GuideError, RequestAborted
from vllm_sgl.guide.base import Guide, GuideWrapper

logger = logging.getLogger("vllm.vllm_sgl.admission")


@dataclass(frozen=True)
class Capacity:
    """What a guide can work on at once.

    requests: the most requests in one batch. tokens: of prompts and answers together, as its KV cache holds
    them. block: tokens per block of the KV cache.
    """

    requests: int
    tokens: int
    block: int = 1


class _Load:
    """Requests of a kind, and the KV cache blocks that they need together; at most one capacity full."""

    def __init__(self, most: Capacity) -> None:
        self._most = most
        self.requests = 0
        self.blocks = 0

    def takes(self, blocks: int) -> bool:
        """Whether one more fits. A single one always does: a guide takes any request that fits its
        context."""
        most = self._most
        room = self.requests < most.requests and self.blocks + blocks <= most.tokens // most.block
        return room or self.requests == 0

    def add(self, blocks: int) -> None:
        self.requests += 1
        self.blocks += blocks

    def remove(self, blocks: int) -> None:
        self.requests -= 1
        self.blocks -= blocks


@dataclass
class _Waiting:
    """turn: done when it gets its place, cancelled or failed when it is given up."""

    request_id: str
    blocks: int
    turn: asyncio.Future[None]

    @property
    def admitted(self) -> bool:
        return self.turn.done() and not self.turn.cancelled() and self.turn.exception() is None


class Admission(GuideWrapper):
    """Passes to a guide only as many requests as it can work on at once.

    Places are given in the order of vLLM's priorities, then of arrival. A request that comes back for its
    consistency pass goes before those that have not been looked at, and is never turned away: its look would
    be lost.

    Args:
        capacity: of the guide; as much again may wait.
        patient: everything may wait, as in a job whose requests all come at once.
    """

    def __init__(self, guide: Guide, capacity: Capacity, *, patient: bool = False) -> None:
        super().__init__(guide)
        self._capacity = capacity
        self._patient = patient
        self._running = _Load(capacity)
        self._waiting = _Load(capacity)
        self._queue: list[tuple[int, int, int, _Waiting]] = []
        self._arrivals = count()
        self._told = False

    @property
    def load(self) -> tuple[int, int]:
        return self._running.requests, self._waiting.requests

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        seen = self._text(request) + self._guide.sees(request)
        tokens = seen + min(answer_tokens, request.max_tokens)
        async with self._place(request, tokens, turned_away=not self._patient, rank=1):
            return await self._guide.look(request, answer_tokens)

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        shown = self._text(request) + ceil(share * self._guide.sees(request))
        tokens = shown + len(result.answer.token_ids) + 1
        async with self._place(request, tokens, turned_away=False, rank=0):
            return await self._guide.confirm(request, result, share)

    @staticmethod
    def _text(request: GuideRequest) -> int:
        """Tokens of a prompt that are not visual, by the large model's tokenizer."""
        return len(request.prompt["prompt_token_ids"]) - sum(request.visual_tokens)

    async def abort(self, request_id: str) -> None:
        for *_, waiting in self._queue:
            if waiting.request_id == request_id and not waiting.turn.done():
                waiting.turn.set_exception(RequestAborted(f"request {request_id} was aborted in the queue"))
        await self._guide.abort(request_id)

    @asynccontextmanager
    async def _place(
        self, request: GuideRequest, tokens: int, turned_away: bool, rank: int
    ) -> AsyncIterator[None]:
        blocks = -(-tokens // self._capacity.block)
        if self._waiting.requests == 0 and self._running.takes(blocks):
            self._running.add(blocks)
        elif turned_away and not self._waiting.takes(blocks):
            raise self._busy()
        else:
            await self._turn(request, blocks, rank)
        try:
            yield
        finally:
            self._running.remove(blocks)
            self._admit()

    async def _turn(self, request: GuideRequest, blocks: int, rank: int) -> None:
        waiting = _Waiting(request.id, blocks, asyncio.get_running_loop().create_future())
        heapq.heappush(self._queue, (request.priority, rank, next(self._arrivals), waiting))
        self._waiting.add(blocks)
        try:
            await waiting.turn
        except BaseException:
            if waiting.admitted:  # its turn came in the very moment in which it was given up
                self._running.remove(blocks)
            else:
                self._waiting.remove(blocks)
            self._admit()
            raise

    def _admit(self) -> None:
        """Admit the requests whose turn it is, and forget those that were given up."""
        while self._queue:
            waiting = self._queue[0][-1]
            if not waiting.turn.done():
                if not self._running.takes(waiting.blocks):
                    return
                self._waiting.remove(waiting.blocks)
                self._running.add(waiting.blocks)
                waiting.turn.set_result(None)
            heapq.heappop(self._queue)

    def _busy(self) -> GuideError:
        told = (
            f"{self._running.requests} requests are with the guide and {self._waiting.requests} wait for it"
        )
        if not self._told:
            self._told = True
            logger.warning(
                "SGL: %s, as many as its batch and its KV cache hold; those beyond go on unguided "
                "(guide_busy; said once, counted in sgl:requests_total). With more memory the small engine "
                "takes more at once (--sgl-small-memory)", told,
            )  # fmt: skip
        return GuideError(Reason.GUIDE_BUSY, told)
