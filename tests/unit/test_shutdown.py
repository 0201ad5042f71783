"""The end of both engines: who waits is told, who comes later is refused, a drain lets requests finish."""

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest
from vllm.exceptions import GracefulHTTPError
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import utils
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector

from vllm_sgl.engine.shutdown import Shutdown, ShuttingDownError
from vllm_sgl.host.request.liveness import ready_in_time, while_alive
from vllm_sgl.host.start.interrupts import interruptible_start

#: Far above what any of these takes; a waiter that nobody tells would hang.
PATIENCE = 10


class Engine:
    """What a shutdown touches of an ``AsyncLLM``: vLLM's own output processor, and pending calls."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        self.output_handler = loop.create_task(asyncio.sleep(3600))
        self.output_processor = OutputProcessor(None, log_stats=False)
        self.engine_core = SimpleNamespace(utility_results={})
        self.errored = False
        self.ended = None

    def end(self, timeout):
        """As ``AsyncLLM.shutdown`` where its race is lost: nobody is told."""
        self.ended = timeout
        self.errored = True
        self.output_handler.get_loop().call_soon_threadsafe(self.output_handler.cancel)

    def wait(self, id="a"):
        """A request that waits for its next output."""
        queue = RequestOutputCollector(RequestOutputKind.CUMULATIVE, id)
        self.output_processor.request_states[id] = SimpleNamespace(queue=queue)
        return asyncio.create_task(queue.get())

    def call(self):
        """A call of one of the engine's methods."""
        future = asyncio.get_running_loop().create_future()
        self.engine_core.utility_results[1] = future
        return future


async def run(shutdown, engines, timeout):
    """As the server does: from a thread beside the loop."""
    pairs = [(engine, engine.end) for engine in engines]
    await asyncio.get_running_loop().run_in_executor(None, shutdown.run, pairs, timeout)


async def test_everybody_who_waits_is_told():
    shutdown, large, small = Shutdown(), Engine(), Engine()
    waiting = [large.wait("a"), large.wait("b"), small.wait(), large.call(), small.call()]
    await asyncio.sleep(0)
    await run(shutdown, [large, small], 0)
    told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE)
    assert [type(error) for error in told] == [ShuttingDownError] * len(waiting)
    assert (large.ended, small.ended) == (0, 0)


async def test_a_walk_is_cut_short_even_where_the_engine_hangs():
    shutdown, large = Shutdown(), Engine()
    given_up = asyncio.Event()

    async def walk():
        with shutdown.request():
            async with shutdown.interruptible():
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    given_up.set()
                    raise

    walking = asyncio.create_task(walk())
    await asyncio.sleep(0)
    await run(shutdown, [large], None)
    with pytest.raises(ShuttingDownError):
        await asyncio.wait_for(walking, PATIENCE)
    assert given_up.is_set()


async def test_a_client_that_leaves_is_no_shutdown():
    shutdown = Shutdown()

    async def walk():
        async with shutdown.interruptible():
            await asyncio.sleep(3600)

    walking = asyncio.create_task(walk())
    await asyncio.sleep(0)
    walking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await walking

    async def late():
        async with shutdown.interruptible():
            raise TimeoutError("the guide's own")

    with pytest.raises(TimeoutError, match="the guide's own"):
        await late()


async def test_who_comes_later_is_refused_with_503():
    shutdown, large = Shutdown(), Engine()
    await run(shutdown, [large], 0)
    with pytest.raises(GracefulHTTPError, match="shutting down") as refused, shutdown.request():
        pass
    assert refused.value.http_status == 503


@pytest.mark.parametrize(("work", "timeout"), [(0.3, 30), (30, 0.3)], ids=["in time", "too slow"])
async def test_drain_waits_for_requests_within_its_time(work, timeout):
    shutdown, large = Shutdown(), Engine()
    finished = []

    async def serve():
        with shutdown.request():
            async with shutdown.interruptible():
                await asyncio.sleep(work)
            finished.append(large.ended)

    serving = asyncio.create_task(serve())
    await asyncio.sleep(0)
    began = time.monotonic()
    await run(shutdown, [large], timeout)
    await asyncio.wait([serving], timeout=PATIENCE)
    assert time.monotonic() - began < PATIENCE
    if work < timeout:
        assert finished == [None]  # before the engine ended
        assert 0 < large.ended <= timeout - work
    else:
        assert finished == []
        assert isinstance(serving.exception(), ShuttingDownError)
        assert large.ended == 0


async def test_drain_from_inside_the_loop_does_not_wait_for_the_loop():
    shutdown, large = Shutdown(), Engine()
    with shutdown.request():
        shutdown.run([(large, large.end)], 3600)
    assert large.ended == 3600


def test_without_a_loop_the_engines_end():
    """An engine that failed to start, or one whose loop is gone."""
    ended = []
    Shutdown().run(
        [(SimpleNamespace(), ended.append), (SimpleNamespace(output_handler=None), ended.append)], 0
    )
    assert ended == [0, 0]


async def test_the_engines_end_side_by_side():
    shutdown = Shutdown()
    both = threading.Barrier(2, timeout=PATIENCE)  # breaks unless two wait at once
    engines = [(SimpleNamespace(), lambda timeout: both.wait()) for _ in range(2)]
    await asyncio.get_running_loop().run_in_executor(None, shutdown.run, engines, 0)
    assert not both.broken


async def test_a_call_ends_with_its_engine():
    engine = Engine()
    call = engine.call()
    waiting = asyncio.create_task(while_alive(engine, call))
    await asyncio.sleep(0)
    engine.errored = True
    with pytest.raises(EngineDeadError):
        await asyncio.wait_for(waiting, PATIENCE)
    assert call.cancelled()
    engine.errored = False
    assert await while_alive(engine, asyncio.sleep(0, "answer")) == "answer"


async def test_an_engine_that_hangs_at_start_is_named(monkeypatch):
    monkeypatch.setenv("VLLM_ENGINE_READY_TIMEOUT_S", "1")
    with pytest.raises(TimeoutError, match=r"the small engine .* after 1 s.*VLLM_ENGINE_READY_TIMEOUT_S"):
        async with ready_in_time("the small engine"):
            await asyncio.sleep(3600)
    with pytest.raises(RuntimeError, match="the small engine died before the first request"):
        async with ready_in_time("the small engine"):
            raise EngineDeadError


@pytest.mark.parametrize("ours", [True, False])
def test_vllm_swallows_an_interrupt_of_an_engines_start_and_we_do_not(tmp_path, monkeypatch, ours):
    """If the second case fails, vLLM lets interrupts through by itself: remove host/start/interrupts.py."""
    monkeypatch.delenv("VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS", raising=False)
    original = utils.zmq_socket_ctx

    def start():
        with utils.zmq_socket_ctx(f"ipc://{tmp_path}/socket", utils.zmq.ROUTER, bind=True):
            raise KeyboardInterrupt("terminated")

    if ours:
        with pytest.raises(KeyboardInterrupt, match="terminated"), interruptible_start():
            start()
    else:
        start()
    assert utils.zmq_socket_ctx is original
