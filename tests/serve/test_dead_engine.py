"""A small engine that dies with a call pending: vLLM never answers that call, so the guide must notice."""

import asyncio

import pytest

from vllm_sgl.core import Reason
from vllm_sgl.errors import GuideError
from vllm_sgl.guide.local.passes import Passes


class DyingEngine:
    """Takes a call, dies, and leaves the caller waiting."""

    def __init__(self):
        self.errored = False

    async def collective_rpc(self, method, timeout=None, args=()):
        self.errored = True
        await asyncio.Event().wait()


async def test_pending_call_fails_when_the_engine_dies():
    passes = Passes(DyingEngine(), timeout=30)
    with pytest.raises(GuideError) as caught:
        await asyncio.wait_for(passes.guarded(passes.take(["key"])), timeout=10)
    assert caught.value.reason == Reason.GUIDE_DEAD


async def test_dead_engine_is_not_asked():
    engine = DyingEngine()
    engine.errored = True
    passes = Passes(engine, timeout=30)
    with pytest.raises(GuideError) as caught:
        await asyncio.wait_for(passes.guarded(passes.take(["key"])), timeout=10)
    assert caught.value.reason == Reason.GUIDE_DEAD
