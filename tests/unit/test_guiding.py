"""Requests that are with the guide: abortable by the client's id wherever they wait, and counted."""

import asyncio

import pytest

from vllm_sgl.engine.in_flight import Guiding
from vllm_sgl.errors import RequestAborted


class Wait:
    """Work that waits until it is let go; notes whether it was cancelled."""

    def __init__(self):
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.cancelled = False

    async def work(self):
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


async def start(guiding, id, tokens=10):
    wait = Wait()
    task = asyncio.create_task(guiding.through(id, tokens, wait.work()))
    await wait.begun.wait()
    return wait, task


async def test_work_that_is_left_alone():
    guiding = Guiding()
    wait, task = await start(guiding, "a")
    assert (len(guiding), guiding.tokens) == (1, 10)
    wait.go.set()
    assert await task == "done"
    assert (len(guiding), guiding.tokens) == (0, 0)


async def test_errors_come_through():
    async def fail():
        raise ValueError("bad")

    guiding = Guiding()
    with pytest.raises(ValueError, match="bad"):
        await guiding.through("a", 1, fail())
    assert len(guiding) == 0


async def test_abort_finds_every_request_of_an_id_and_no_other():
    guiding = Guiding()
    started = [await start(guiding, id, tokens) for id, tokens in (("same", 1), ("same", 2), ("other", 4))]
    assert guiding.abort(["same", "unknown"]) == ["same", "same"]
    for wait, task in started[:2]:
        with pytest.raises(RequestAborted, match="request same was aborted while it was with the guide"):
            await task
        assert wait.cancelled
    assert (len(guiding), guiding.tokens) == (1, 4)
    wait, task = started[2]
    wait.go.set()
    assert await task == "done"


async def test_cancellation_stays_cancellation():
    guiding = Guiding()
    wait, task = await start(guiding, "a")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert wait.cancelled
    assert len(guiding) == 0


async def test_a_client_that_leaves_an_aborted_request_has_left():
    guiding = Guiding()
    _, task = await start(guiding, "a")
    guiding.abort(["a"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_was_done_when_the_abort_came_is_not_used():
    guiding = Guiding()
    wait, task = await start(guiding, "a")
    wait.go.set()
    await asyncio.sleep(0)  # the work's task has ended or is about to; nobody has taken its result
    guiding.abort(["a"])
    with pytest.raises(RequestAborted):
        await task
