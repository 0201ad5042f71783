"""Requests the guide is working on. They count as in flight although vLLM has not seen them yet."""

import asyncio
from collections.abc import Coroutine, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from vllm_sgl.errors import RequestAborted

Result = TypeVar("Result")

#: Whether the current request was admitted before it went to the guide.
admitted: ContextVar[bool] = ContextVar("vllm_sgl_admitted", default=False)


@dataclass(eq=False)
class _Walk:
    request_id: str
    tokens: int
    task: "asyncio.Task[Any]"
    aborted: bool = False


class Guiding:
    """Holds them by the client's ids, which need not be unique, as vLLM's own abort takes them."""

    def __init__(self) -> None:
        self._walks: set[_Walk] = set()

    def __len__(self) -> int:
        return len(self._walks)

    @property
    def tokens(self) -> int:
        """The tokens of all their prompts."""
        return sum(walk.tokens for walk in self._walks)

    async def through(self, request_id: str, tokens: int, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of the work on a request. The work is a task of its own, which an abort can cancel at
        any point.

        Args:
            tokens: of its prompt.

        Raises:
            RequestAborted: when it was aborted by its id.
        """
        walk = _Walk(request_id, tokens, asyncio.create_task(work))
        self._walks.add(walk)
        try:
            result: Result = await walk.task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not walk.aborted or (current is not None and current.cancelling()):
                raise
        finally:
            self._walks.discard(walk)
        if walk.aborted:
            raise RequestAborted(f"request {request_id} was aborted while it was with the guide")
        return result

    def abort(self, request_ids: Iterable[str]) -> list[str]:
        """Cancel the work on the requests that are here; returns their ids."""
        wanted = set(request_ids)
        found = [walk for walk in self._walks if walk.request_id in wanted]
        for walk in found:
            walk.aborted = True
            walk.task.cancel()
        return [walk.request_id for walk in found]
