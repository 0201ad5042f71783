"""How many looks a guide is given at once, who waits, and who is turned away."""

import asyncio

import pytest

from tests.guide.fakes import RESULT, HeldGuide, request, settle
from vllm_sgl.core import Reason
from vllm_sgl.errors import GuideError, RequestAborted
from vllm_sgl.guide.base import load_of
from vllm_sgl.guide.guards.admission import Admission, Capacity
from vllm_sgl.guide.guards.breaker import Breaker

TWO = Capacity(requests=2, tokens=1000)


class Scene:
    """An admission over a guide that holds what it is given."""

    def __init__(self, capacity=TWO, patient=False):
        self.guide = HeldGuide()
        self.admission = Admission(self.guide, capacity, patient=patient)

    async def ask(self, *requests, answer_tokens=4):
        """One task per request, in this order, all of them under way."""
        asked = [asyncio.create_task(self.admission.look(one, answer_tokens)) for one in requests]
        await settle()
        return asked

    async def answer(self, *ids):
        for id in ids:
            self.guide.answer(id)
        await settle()


def ids(text):
    return [request(id) for id in text]


async def test_as_many_at_once_as_the_batch_takes_and_the_others_in_order():
    scene = Scene()
    asked = await scene.ask(*ids("abcd"))
    assert scene.guide.begun == ["a", "b"]
    assert load_of(Breaker(scene.admission, None)) == (2, 2)  # what the gauges show
    await scene.answer("b")
    assert scene.guide.begun == ["a", "b", "c"]
    await scene.answer("a", "c")
    assert scene.guide.begun == ["a", "b", "c", "d"]
    await scene.answer("d")
    assert await asyncio.gather(*asked) == [RESULT] * 4


async def test_what_does_not_fit_is_turned_away_at_once(warnings_logged):
    scene = Scene()
    asked = await scene.ask(*ids("abcdef"))
    for late in asked[4:]:
        assert late.done()
        with pytest.raises(GuideError, match="2 requests are with the guide and 2 wait") as caught:
            late.result()
        assert caught.value.reason == Reason.GUIDE_BUSY
    assert [record.levelname for record in warnings_logged] == ["WARNING"]  # said once
    await scene.answer("a", "b")
    (again,) = await scene.ask(request("g"))  # room again
    await scene.answer("c", "d")
    await scene.answer("g")
    assert await asyncio.gather(*asked[:4], again) == [RESULT] * 5


async def test_a_patient_one_turns_nobody_away():
    scene = Scene(patient=True)
    names = [str(number) for number in range(50)]
    asked = await scene.ask(*map(request, names))
    for first, second in zip(names[::2], names[1::2], strict=True):
        assert list(scene.guide.running) == [first, second]
        await scene.answer(first, second)
    assert await asyncio.gather(*asked) == [RESULT] * 50


async def test_the_kv_cache_counts_in_blocks_of_prompt_and_answer():
    # 96 tokens in blocks of 32: a prompt of 28 and an answer of 4 take one, one token more takes two.
    scene = Scene(Capacity(requests=9, tokens=96, block=32))
    await scene.ask(request("a", 28), request("b", 28), request("c", 28), request("d", 28))
    assert list(scene.guide.running) == ["a", "b", "c"]
    scene = Scene(Capacity(requests=9, tokens=96, block=32))
    await scene.ask(request("a", 29), request("b", 29), request("c", 28))
    assert list(scene.guide.running) == ["a"]
    # The client's own limit bounds the answer: 31 tokens and one more.
    scene = Scene(Capacity(requests=9, tokens=96, block=32))
    await scene.ask(*(request(id, 31, max_tokens=1) for id in "abcd"), answer_tokens=32)
    assert list(scene.guide.running) == ["a", "b", "c"]


async def test_visual_tokens_are_those_that_the_guide_sees():
    """Which may be others than the large model's: here 8 instead of 20, with 4 of text and 4 of an answer."""
    for seen, running in ((8, ["a", "b"]), (20, ["a"])):
        scene = Scene(Capacity(requests=9, tokens=32))
        scene.guide.sees = lambda request, seen=seen: seen
        await scene.ask(request("a", 24, visual=20), request("b", 24, visual=20))
        assert list(scene.guide.running) == running


async def test_the_waiting_room_is_bounded_by_tokens_too():
    scene = Scene(Capacity(requests=9, tokens=96))
    asked = await scene.ask(request("a", 90), request("b", 60), request("c", 60), request("d", 20))
    assert [task.done() for task in asked] == [False, False, True, False]
    # Nobody overtakes: the small one would fit beside a running one, but came after a larger one.
    await scene.answer("a")
    assert list(scene.guide.running) == ["b", "d"]


async def test_a_request_larger_than_all_of_the_cache_runs_alone():
    scene = Scene(Capacity(requests=9, tokens=96))
    await scene.ask(request("a", 500), request("b", 500))
    assert list(scene.guide.running) == ["a"]
    await scene.answer("a")
    assert list(scene.guide.running) == ["b"]


async def test_priorities_go_first():
    scene = Scene(Capacity(requests=1, tokens=1000), patient=True)
    await scene.ask(
        request("a"), request("b", priority=3), request("c", priority=-1), request("d", priority=3)
    )
    for next_one in "acbd":
        assert list(scene.guide.running) == [next_one]
        await scene.answer(next_one)


async def test_a_consistency_pass_goes_first_and_is_never_turned_away():
    scene = Scene()
    await scene.ask(*ids("abcd"))
    confirming = asyncio.create_task(scene.admission.confirm(request("x", 100, visual=90), RESULT, 0.05))
    await settle()
    assert not confirming.done()
    await scene.answer("a")
    assert list(scene.guide.running) == ["b", "confirm x"]
    scene.guide.answer("confirm x", 0.75)
    assert await confirming == 0.75


async def test_a_consistency_pass_takes_the_room_of_what_it_shows():
    # 10 tokens of text, 5 of 90 visual ones, 3 of the answer and the one after it: 19.
    for tokens, fits in ((100 + 19, True), (100 + 18, False)):
        scene = Scene(Capacity(requests=9, tokens=tokens))
        await scene.ask(request("a", 96))
        confirming = asyncio.create_task(scene.admission.confirm(request("x", 100, visual=90), RESULT, 0.05))
        await settle()
        assert ("confirm x" in scene.guide.running) == fits
        confirming.cancel()


async def test_a_failed_look_gives_its_place_away():
    scene = Scene(Capacity(requests=1, tokens=1000))
    failed, _ = await scene.ask(*ids("ab"))
    scene.guide.fail("a", GuideError(Reason.GUIDE_FAILED, "broken"))
    await settle()
    with pytest.raises(GuideError, match="broken"):
        await failed
    assert list(scene.guide.running) == ["b"]


async def test_a_cancelled_look_gives_its_place_away_wherever_it_is():
    scene = Scene(Capacity(requests=2, tokens=1000))
    asked = await scene.ask(*ids("abcd"))
    asked[2].cancel()  # waits
    asked[0].cancel()  # runs
    await settle()
    assert list(scene.guide.running) == ["b", "d"]
    (waits, fits) = await scene.ask(*ids("ef"))
    assert not waits.done()
    assert not fits.done()


async def test_a_place_that_comes_in_the_moment_of_a_cancellation_is_not_lost():
    scene = Scene(Capacity(requests=1, tokens=1000))
    asked = await scene.ask(*ids("a"))
    asked += await scene.ask(*ids("b"))
    scene.guide.answer("a")
    # Runs after the look that hands its place on, and before the one that is given it.
    asyncio.get_running_loop().call_soon(asked[1].cancel)
    await settle()
    assert asked[1].cancelled()
    assert scene.guide.begun == ["a"]
    await scene.ask(*ids("c"))
    assert list(scene.guide.running) == ["c"]


async def test_aborted_by_id_in_the_queue_and_in_the_guide():
    scene = Scene(Capacity(requests=1, tokens=1000))
    runs, waits = [*(await scene.ask(*ids("a"))), *(await scene.ask(*ids("b")))]
    await scene.admission.abort("b")
    await settle()
    with pytest.raises(RequestAborted):
        await waits
    await scene.admission.abort("a")
    with pytest.raises(RequestAborted):
        await runs
    assert scene.guide.begun == ["a"]
    await scene.ask(*ids("c"))
    assert list(scene.guide.running) == ["c"]


async def test_everything_else_is_the_guides():
    scene = Scene()
    assert scene.admission.context == 1024
    assert scene.admission.alive
    await scene.admission.start()
    scene.admission.stop()
    assert scene.guide.calls == ["start", "stop"]
    assert not scene.admission.alive
