"""A guide that does not answer is left alone, and asked again when it does."""

import asyncio

import pytest

from tests.guide.fakes import DEAD, RESULT, SILENT, Clock, HeldGuide, request, settle
from vllm_sgl.core import Reason
from vllm_sgl.errors import GuideError
from vllm_sgl.guide.guards.breaker import Breaker


class Scene:
    """A breaker over a guide that holds what it is given, and a clock that stands still."""

    def __init__(self):
        self.guide = HeldGuide()
        self.clock = Clock()
        self.breaker = Breaker(self.guide, self.guide.probe, sleep=self.clock.sleep)

    async def ask(self, id):
        asked = asyncio.create_task(self.breaker.look(request(id), 4))
        await settle()
        return asked

    async def fail(self, *ids, error=SILENT):
        """Requests one after the other, each failing with this error."""
        for id in ids:
            asked = await self.ask(id)
            self.guide.fail(id, error)
            assert await reason_of(asked) == error.reason

    async def answer(self, id):
        asked = await self.ask(id)
        self.guide.answer(id)
        assert await asked is RESULT

    async def passes_by(self):
        """Whether a request is not given to the guide."""
        begun = len(self.guide.begun)
        asked = await self.ask("late")
        if len(self.guide.begun) > begun:
            asked.cancel()
            return False
        return await reason_of(asked) == Reason.GUIDE_UNWELL


async def reason_of(task):
    with pytest.raises(GuideError) as caught:
        await task
    return caught.value.reason


async def test_opens_after_three_silences_in_a_row(warnings_logged):
    scene = Scene()
    await scene.fail("a", "b")
    assert scene.breaker.alive
    await scene.answer("c")
    await scene.fail("d", "e")
    assert not await scene.passes_by()
    await scene.fail("f")
    assert not scene.breaker.alive
    assert await scene.passes_by()
    (record,) = warnings_logged
    assert "does not answer (3 times in a row, last: no answer after 5.0 s)" in record.getMessage()


async def test_other_failures_are_not_silence():
    scene = Scene()
    await scene.fail("a", "b")
    for error in (DEAD, GuideError(Reason.GUIDE_FAILED, "x"), GuideError(Reason.GUIDE_BUSY, "x")):
        await scene.fail("c", "d", error=error)
    assert scene.breaker.alive
    await scene.fail("e")  # nor do they break the row
    assert not scene.breaker.alive


async def test_a_probe_that_is_answered_closes_it(warnings_logged):
    scene = Scene()
    scene.guide.probe_fails = SILENT
    await scene.fail("a", "b", "c")
    await scene.clock.forward(3.5)
    assert scene.guide.calls == ["probe"] * 3
    assert await scene.passes_by()
    scene.guide.probe_fails = None
    await scene.clock.forward(0.5)
    assert scene.breaker.alive
    await scene.answer("d")
    assert [record.getMessage().split(",")[0] for record in warnings_logged] == [
        "SGL: the guide does not answer (3 times in a row",
        "SGL: the guide answers again",
    ]
    await scene.clock.forward(60)
    assert len(scene.guide.calls) == 4  # and no more probes


async def test_those_who_wait_when_it_opens_need_not_wait_longer():
    scene = Scene()
    stuck = [await scene.ask(id) for id in ("x", "y")]
    confirming = asyncio.create_task(scene.breaker.confirm(request("z"), RESULT, 0.05))
    await scene.fail("a", "b", "c")
    assert [await reason_of(task) for task in (*stuck, confirming)] == [Reason.GUIDE_UNWELL] * 3
    await settle()
    assert not scene.guide.running  # they were taken back from the guide, too


async def test_after_a_probe_the_first_request_decides():
    scene = Scene()
    await scene.fail("a", "b", "c")
    await scene.clock.forward(1)
    assert scene.breaker.alive
    await scene.fail("d")  # it answers probes, but no requests: ask ever more rarely
    assert not scene.breaker.alive
    for pause in (2, 4, 8, 16, 32, 60, 60):
        await scene.clock.forward(pause - 0.1)
        assert not scene.breaker.alive
        await scene.clock.forward(0.1)
        assert scene.breaker.alive
        await scene.fail("e")
    await scene.clock.forward(60)
    await scene.answer("f")
    await scene.fail("g", "h")
    assert scene.breaker.alive
    await scene.fail("i")
    assert not scene.breaker.alive
    await scene.clock.forward(1)
    assert scene.breaker.alive


async def test_while_one_request_decides_the_others_do_not_wait():
    scene = Scene()
    await scene.fail("a", "b", "c")
    await scene.clock.forward(1)
    deciding = await scene.ask("d")
    assert await scene.passes_by()
    assert scene.guide.begun[-1] == "d"
    scene.guide.fail("d", SILENT)
    assert await reason_of(deciding) == Reason.GUIDE_TIMEOUT
    assert not scene.breaker.alive  # one silence was enough
    await scene.clock.forward(2)
    deciding = await scene.ask("e")
    assert await scene.passes_by()
    scene.guide.answer("e")
    assert await deciding is RESULT
    both = [await scene.ask("f"), await scene.ask("g")]
    assert set(scene.guide.running) == {"f", "g"}
    for id in "fg":
        scene.guide.answer(id)
    assert [await task for task in both] == [RESULT, RESULT]


@pytest.mark.parametrize("error", [None, GuideError(Reason.GUIDE_FAILED, "x"), DEAD])
async def test_where_the_request_that_decides_says_nothing_the_next_one_decides(error):
    scene = Scene()
    await scene.fail("a", "b", "c")
    await scene.clock.forward(1)
    if error is None:  # its client leaves
        asked = await scene.ask("d")
        asked.cancel()
        await settle()
    else:
        await scene.fail("d", error=error)
    deciding = await scene.ask("e")
    assert await scene.passes_by()
    scene.guide.answer("e")
    assert await deciding is RESULT
    assert not await scene.passes_by()


async def test_a_dead_guide_is_not_up_but_not_silent():
    scene = Scene()
    scene.guide.alive = False
    assert not scene.breaker.alive
    await scene.fail("a", "b", "c", "d", error=DEAD)
    assert not await scene.passes_by()


async def test_a_client_that_leaves_takes_its_request_back():
    scene = Scene()
    asked = await scene.ask("a")
    asked.cancel()
    await settle()
    assert asked.cancelled()
    assert not scene.guide.running


async def test_stop_ends_those_who_wait_and_the_probes():
    scene = Scene()
    scene.guide.probe_fails = SILENT
    asked = await scene.ask("a")
    await asyncio.to_thread(scene.breaker.stop)
    assert await reason_of(asked) == Reason.GUIDE_DEAD
    assert scene.guide.calls == ["stop"]

    scene = Scene()
    await scene.fail("a", "b", "c")
    await asyncio.to_thread(scene.breaker.stop)
    await scene.clock.forward(10)
    assert scene.guide.calls == ["stop"]
