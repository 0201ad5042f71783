"""Fetching importance: one RPC at a time, as many requests in each as wait."""

import asyncio
import gc

import pytest

from vllm_sgl.guide.local.collector import Collector


class Workers:
    """Two workers; records each RPC and answers when let go."""

    def __init__(self):
        self.calls: list[list[str]] = []
        self.running = 0
        self.gate = asyncio.Event()
        self.fails_with: dict[str, Exception] = {}

    async def take(self, keys):
        self.running += 1
        assert self.running == 1, "two RPCs at once"
        self.calls.append(keys)
        await self.gate.wait()
        self.running -= 1
        for key in keys:
            if key in self.fails_with:
                raise self.fails_with[key]
        return [[{"worker": worker, "key": key} for key in keys] for worker in range(2)]


def both(key):
    return [{"worker": 0, "key": key}, {"worker": 1, "key": key}]


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_that_wait_share_the_next_rpc():
    workers = Workers()
    collector = Collector(workers.take)
    first = asyncio.create_task(collector.take("a"))
    await settle()
    rest = [asyncio.create_task(collector.take(key)) for key in "bcd"]
    await settle()
    assert workers.calls == [["a"]]
    workers.gate.set()
    assert await first == both("a")
    assert await asyncio.gather(*rest) == [both(key) for key in "bcd"]
    assert workers.calls == [["a"], ["b", "c", "d"]]


async def test_it_works_again_after_it_was_idle():
    workers = Workers()
    workers.gate.set()
    collector = Collector(workers.take)
    assert await collector.take("a") == both("a")
    await settle()
    assert await collector.take("b") == both("b")


async def test_failed_rpc_fails_everyone_in_it_and_nobody_else():
    workers = Workers()
    workers.fails_with["b"] = RuntimeError("worker died")
    collector = Collector(workers.take)
    first = asyncio.create_task(collector.take("a"))
    await settle()
    together = [asyncio.create_task(collector.take(key)) for key in "bc"]
    await settle()
    workers.gate.set()
    assert await first == both("a")
    for task in together:
        with pytest.raises(RuntimeError, match="worker died"):
            await task
    assert await collector.take("d") == both("d")


async def test_discarded_key_is_taken_from_the_workers_without_waiting():
    workers = Workers()
    collector = Collector(workers.take)
    collector.discard("gone")
    waiting = asyncio.create_task(collector.take("a"))
    await settle()
    workers.gate.set()
    assert await waiting == both("a")
    assert sorted(key for call in workers.calls for key in call) == ["a", "gone"]


async def test_failure_of_a_discarded_key_is_nobodys_problem():
    workers = Workers()
    workers.fails_with["gone"] = RuntimeError("worker died")
    workers.gate.set()
    collector = Collector(workers.take)
    unhandled = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    collector.discard("gone")
    await settle()
    assert await collector.take("a") == both("a")
    gc.collect()
    assert unhandled == []


async def test_caller_that_left_does_not_disturb_the_batch():
    workers = Workers()
    collector = Collector(workers.take)
    leaver, stayer = (asyncio.create_task(collector.take(key)) for key in "ab")
    await settle()
    leaver.cancel()
    await settle()
    workers.gate.set()
    assert await stayer == both("b")
    assert leaver.cancelled()
