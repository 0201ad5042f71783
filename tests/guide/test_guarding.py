"""What is put around the small guide, and in which order."""

import asyncio
from types import SimpleNamespace

import pytest

from tests.guide.fakes import SILENT, HeldGuide, request, settle
from vllm_sgl.core import Reason
from vllm_sgl.errors import GuideError
from vllm_sgl.guide import build
from vllm_sgl.guide.base import GuideWrapper
from vllm_sgl.guide.build import guarded
from vllm_sgl.guide.guards.admission import Admission, Capacity
from vllm_sgl.guide.guards.breaker import Breaker
from vllm_sgl.guide.remembered import Remembered


async def ask(guide, id):
    asked = asyncio.create_task(guide.look(request(id), 4))
    await settle()
    return asked


async def reason_of(task):
    with pytest.raises(GuideError) as caught:
        await task
    return caught.value.reason


async def test_nothing_is_done_for_a_request_that_is_turned_away():
    """A guide around the small one renders every request a second time: not these."""
    around = HeldGuide()
    small = SimpleNamespace(guide=SimpleNamespace(capacity=Capacity(1, 1000)), probe=around.probe)
    guide = guarded(around, small, patient=False)
    runs, waits, busy = [await ask(guide, id) for id in "abc"]
    assert await reason_of(busy) == Reason.GUIDE_BUSY
    for id in "ab":
        around.fail(id, SILENT)
        await settle()
    assert [await reason_of(task) for task in (runs, waits)] == [Reason.GUIDE_TIMEOUT] * 2
    third = await ask(guide, "d")
    around.fail("d", SILENT)
    assert await reason_of(third) == Reason.GUIDE_TIMEOUT
    assert not guide.alive
    assert await reason_of(await ask(guide, "e")) == Reason.GUIDE_UNWELL
    assert around.begun == ["a", "b", "d"]
    await asyncio.to_thread(guide.stop)


@pytest.mark.parametrize("way", ["shared", "translated"])
@pytest.mark.parametrize("memory", [0, 8])
def test_a_memory_lies_where_requests_are_the_same(monkeypatch, way, memory):
    """Around the guards, which then have nothing to do; beneath a guide that renders requests anew. The
    wrapper stands for what a kind of pair puts around the small engine's guide."""
    monkeypatch.setattr(build, "guide_over", lambda local, *_: GuideWrapper(local))
    small = SimpleNamespace(guide=SimpleNamespace(capacity=Capacity(1, 1000)), probe=None)
    config = SimpleNamespace(additional_config={"sgl": {"small": "s", "guide_memory": memory}})
    guide = build.guide_of(small, SimpleNamespace(way=way), config, None, False)
    found = []
    while guide is not small:
        found.append(type(guide))
        guide = guide._guide
    kept = [Remembered] if memory else []
    expected = {
        "shared": [*kept, Breaker, Admission, GuideWrapper],
        "translated": [Breaker, Admission, GuideWrapper, *kept],
    }
    assert found == expected[way]
