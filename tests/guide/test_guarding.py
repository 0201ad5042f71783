"""What is put around the small guide, and in which order."""

import asyncio
from types import SimpleNamespace

import pytest

from tests.guide.fakes import SILENT, HeldGuide, request, settle
from vllm_sgl.core import Reason
from vllm_sgl.errors import GuideError
from vllm_sgl.guide.build import guarded
from vllm_sgl.guide.guards.admission import Capacity


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
