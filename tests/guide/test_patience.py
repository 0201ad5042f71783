"""When a pass of the small engine counts as failed, and as what."""

import asyncio
from types import SimpleNamespace

import pytest
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError

from vllm_sgl.core import Reason
from vllm_sgl.errors import GuideError
from vllm_sgl.guide.local.passes import Passes

TIMEOUT = 0.05
DONE = SimpleNamespace(outputs=[SimpleNamespace(finish_reason="stop")])


class SlowEngine:
    """Takes a while for each request. calls: how often it was asked whether it is there."""

    errored = False

    def __init__(self, seconds, answers_calls=True, error=None):
        self.seconds = seconds
        self.answers_calls = answers_calls
        self.error = error
        self.calls = 0

    async def generate(self, prompt, params, id, priority):
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        yield DONE

    async def collective_rpc(self, method, timeout=None, args=()):
        self.calls += 1
        if not self.answers_calls:
            await asyncio.Event().wait()
        return [[]]


def run(passes):
    return passes.guarded(passes.run({}, SamplingParams(), "r", 0))


async def reason_of(work):
    with pytest.raises(GuideError) as caught:
        await asyncio.wait_for(work, 10)
    return caught.value.reason


async def test_a_server_waits_for_a_pass_so_long_and_no_longer():
    assert await run(Passes(SlowEngine(0), TIMEOUT)) is DONE
    engine = SlowEngine(20)
    assert await reason_of(run(Passes(engine, TIMEOUT))) == Reason.GUIDE_TIMEOUT
    assert engine.calls == 0


async def test_a_job_waits_as_long_as_the_engine_answers():
    engine = SlowEngine(20 * TIMEOUT)
    passes = Passes(engine, TIMEOUT, patient=True)
    assert await asyncio.gather(*(run(passes) for _ in range(10))) == [DONE] * 10
    assert 1 < engine.calls < 50  # asked again and again, and not by everyone for himself


async def test_a_job_does_not_wait_for_a_silent_engine():
    engine = SlowEngine(20, answers_calls=False)
    passes = Passes(engine, TIMEOUT, patient=True)
    for _ in range(2):
        assert await reason_of(run(passes)) == Reason.GUIDE_TIMEOUT
    assert engine.calls == 1  # the one that is under way is enough


async def test_a_job_does_not_wait_for_a_dead_engine():
    engine = SlowEngine(20, answers_calls=False)
    passes = Passes(engine, TIMEOUT, patient=True)
    waiting = asyncio.ensure_future(run(passes))
    await asyncio.sleep(1.5 * TIMEOUT)
    engine.errored = True
    assert await reason_of(waiting) == Reason.GUIDE_DEAD


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (VLLMValidationError("token_id(s) [999999] out of range"), Reason.GUIDE_REFUSED),
        (ValueError("a bug"), Reason.GUIDE_FAILED),
    ],
)
async def test_what_the_engine_refuses_is_no_failure(error, reason):
    assert await reason_of(run(Passes(SlowEngine(0, error=error), TIMEOUT))) == reason
