"""A guide that dies is started again: in the background, ever more slowly, and not for ever."""

import asyncio
import threading

import pytest

from tests.guide.fakes import DEAD, RESULT, Clock, HeldGuide, request, settle
from vllm_sgl.core import Reason
from vllm_sgl.errors import GuideError
from vllm_sgl.guide.guards.restart import Revived


class Unready(HeldGuide):
    async def start(self):
        self.calls.append("start")
        raise NotImplementedError("cannot be read")


class Scene:
    """A revived guide, and what there is to be made next: a guide, or an error that making it raises."""

    def __init__(self, *made):
        self.first = HeldGuide()
        self.to_make = list(made)
        self.made_at = []
        self.clock = Clock()
        self.guide = Revived(self.first, self.make, sleep=self.clock.sleep, clock=self.clock)

    def make(self):
        assert threading.current_thread() is not threading.main_thread()
        self.made_at.append(self.clock.now)
        made = self.to_make.pop(0)
        if isinstance(made, Exception):
            raise made
        return made

    async def forward(self, seconds):
        """In small steps, between which threads get the time they need."""
        for _ in range(int(seconds * 4)):
            await self.clock.forward(0.25)
            while any(thread.name == "sgl-background" for thread in threading.enumerate()):
                await asyncio.sleep(0.001)
            await settle()


async def test_requests_fail_while_it_is_dead_and_are_answered_afterwards(warnings_logged):
    second = HeldGuide()
    scene = Scene(second)
    await scene.guide.start()
    await scene.forward(5)
    assert scene.made_at == []
    stuck = asyncio.create_task(scene.guide.look(request("a"), 4))
    await settle()
    scene.first.alive = False
    scene.first.fail("a", DEAD)
    with pytest.raises(GuideError) as caught:
        await stuck
    assert caught.value.reason == Reason.GUIDE_DEAD
    assert not scene.guide.alive
    await scene.forward(3)
    assert scene.guide.alive
    assert scene.first.calls == ["start", "stop"]  # what is left of it is cleared away
    assert second.calls == ["start"]
    asked = asyncio.create_task(scene.guide.look(request("b"), 4))
    await settle()
    second.answer("b")
    assert await asked is RESULT
    await scene.guide.probe()
    await scene.guide.abort("c")
    assert second.calls == ["start", "probe", "abort c"]
    assert [record.getMessage()[:35] for record in warnings_logged] == [
        "SGL: the small engine died; request",
        "SGL: the small engine runs again, a",
    ]


async def test_starts_that_fail_are_tried_again_ever_more_slowly(warnings_logged):
    unready, ready = Unready(), HeldGuide()
    scene = Scene(OSError("no memory"), unready, RuntimeError("engine core"), ready)
    await scene.guide.start()
    scene.first.alive = False
    await scene.forward(30)
    assert scene.made_at == [2, 4, 8, 16]  # one second to notice, then 1, 2, 4 and 8
    assert unready.calls == ["start", "stop"]
    assert ready.calls == ["start"]
    assert scene.guide.alive
    messages = [record.getMessage() for record in warnings_logged]
    assert messages[1] == "SGL: start 1 of 5 failed: OSError: no memory"
    assert len(messages) == 5


async def test_not_for_ever(warnings_logged):
    scene = Scene(*[OSError("no memory")] * 9)
    await scene.guide.start()
    scene.first.alive = False
    await scene.forward(200)
    assert len(scene.made_at) == 5
    assert not scene.guide.alive
    assert "died or did not start 5 times in a row and is left alone" in warnings_logged[-1].getMessage()


async def test_one_that_dies_soon_again_uses_up_the_same_attempts():
    scene = Scene(*(HeldGuide() for _ in range(20)))
    await scene.guide.start()
    for _ in range(5):
        scene.guide.guide.alive = False
        await scene.forward(40)
        assert scene.guide.alive
    scene.guide.guide.alive = False
    await scene.forward(200)
    assert not scene.guide.alive
    assert len(scene.made_at) == 5


async def test_one_that_lived_long_may_be_started_as_often_again():
    scene = Scene(*(HeldGuide() for _ in range(20)))
    await scene.guide.start()
    for _ in range(7):
        await scene.clock.forward(601)
        scene.guide.guide.alive = False
        await scene.forward(3)
        assert scene.guide.alive


async def test_a_start_that_ends_after_the_stop_is_undone():
    made, may_end = HeldGuide(), threading.Event()
    scene = Scene(made)
    make = scene.make

    def slowly():
        assert may_end.wait(10)
        return make()

    scene.guide._make = slowly
    await scene.guide.start()
    scene.first.alive = False
    await scene.clock.forward(2)
    await asyncio.to_thread(scene.guide.stop)
    may_end.set()
    await scene.forward(1)
    assert made.calls == ["stop"]
    assert not scene.guide.alive


async def test_stop_gives_up_a_start_that_is_under_way():
    given_up = threading.Event()
    scene = Scene(HeldGuide())

    def make():
        assert given_up.wait(10)
        raise RuntimeError("its process was killed")

    scene.guide._make, scene.guide._give_up = make, given_up.set
    await scene.guide.start()
    scene.first.alive = False
    await scene.clock.forward(2)
    await asyncio.to_thread(scene.guide.stop)
    assert given_up.is_set()
    assert not scene.guide.alive


async def test_stop_ends_a_guide_that_is_getting_ready():
    made = HeldGuide()
    scene = Scene(made)

    async def never_ready():
        await asyncio.Event().wait()

    made.start = never_ready
    await scene.guide.start()
    scene.first.alive = False
    await scene.forward(3)
    assert not scene.guide.alive
    await asyncio.to_thread(scene.guide.stop)
    assert made.calls == ["stop"]


class Unending(Unready):
    """Neither starts nor ends."""

    def stop(self, timeout=None):
        super().stop(timeout)
        raise OSError("no such process")


async def test_engines_that_do_not_end_do_not_keep_another_from_being_started(warnings_logged):
    ready = HeldGuide()
    scene = Scene(Unending(), ready)
    scene.first.stop = Unending().stop
    await scene.guide.start()
    scene.first.alive = False
    await scene.forward(20)
    assert scene.guide.guide is ready
    assert scene.guide.alive
    assert sum("does not end" in record.getMessage() for record in warnings_logged) == 3  # the dead one twice
