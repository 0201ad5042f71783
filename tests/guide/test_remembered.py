"""The guide's memory: what is the same to the token is asked once, and nothing else is taken for it."""

import asyncio
from dataclasses import replace

import pytest
import torch
from vllm import SamplingParams

from tests.guide.fakes import SILENT, HeldGuide, settle
from tests.support.prompts import make_prompt
from vllm_sgl.core import Answer, GuideRequest, GuideResult, Reason, VisualItem
from vllm_sgl.errors import GuideError, RequestAborted
from vllm_sgl.guide import remembered
from vllm_sgl.guide.remembered import Remembered
from vllm_sgl.host.render.mm_input import PlaceholderRange


def request(id="a", *, params=None, **changes):
    prompt = {**make_prompt(), **changes.pop("prompt", {})}
    items = (VisualItem("image", 5), VisualItem("image", 3))
    asked = GuideRequest(id, prompt, items, SamplingParams(**(params or {})), 8, "prompt")
    return replace(asked, **changes)


def result(value=1.0):
    answer = Answer("yes", (7, 2), (-0.1, -0.2), True, "stop")
    return GuideResult([torch.full((5,), value), torch.ones(3)], answer)


@pytest.fixture
def held():
    return HeldGuide()


@pytest.fixture
def guide(held):
    return Remembered(held, most=4)


async def look(guide, asked, tokens=4):
    task = asyncio.create_task(guide.look(asked, tokens))
    await settle()
    return task


async def known(guide, held, asked, tokens=4):
    """Whether a look needs nobody; one that does is answered."""
    before = len(held.begun)
    task = await look(guide, asked, tokens)
    if len(held.begun) > before:
        held.answer(asked.id)
        await task
        return False
    assert task.done()
    task.result()  # not an error
    return True


async def test_what_was_asked_is_known(guide, held):
    first = await look(guide, request("a"))
    held.answer("a", result())
    again, found = await (await look(guide, request("b"))), await first
    assert again.answer is found.answer
    assert all(map(torch.equal, again.importance, found.importance))
    assert held.begun == ["a"]


PLACES = make_prompt()["mm_placeholders"]["image"]
MOVED = PlaceholderRange(PLACES[1].offset + 1, PLACES[1].length)
OTHERS = {
    "question": {"prompt": {"prompt_token_ids": [*make_prompt()["prompt_token_ids"][:-1], 999]}},
    "image": {"prompt": {"mm_hashes": {"image": ["other", *make_prompt()["mm_hashes"]["image"][1:]]}}},
    "place": {"prompt": {"mm_placeholders": {"image": [PLACES[0], MOVED]}}},
    "salt": {"prompt": {"cache_salt": "another"}},
    "rows": {"query_rows": "last_prompt"},
    "limit": {"max_tokens": 3},
    "stop": {"params": {"stop": ["x"]}},
    "bad words": {"params": {"bad_words": ["x"]}},
    "penalty": {"params": {"repetition_penalty": 1.5}},
    "bias": {"params": {"logit_bias": {1: 2.0}}},
    "special tokens": {"params": {"skip_special_tokens": False}},
}


@pytest.mark.parametrize("other", OTHERS)
async def test_anything_else_is_another_look(guide, held, other):
    assert not await known(guide, held, request("a"))
    assert not await known(guide, held, request("b", **OTHERS[other]))
    assert await known(guide, held, request("c", **OTHERS[other]))
    assert await known(guide, held, request("d"))


async def test_a_longer_answer_is_another_look(guide, held):
    assert not await known(guide, held, request("a"), 4)
    assert not await known(guide, held, request("b"), 5)
    assert not await known(guide, held, request("c"), 100)
    assert await known(guide, held, request("d"), 8)  # the request's own limit


async def test_what_the_guide_never_hears_of_makes_no_difference(guide, held):
    assert not await known(guide, held, request("a"))
    own = {"sgl_retention": 0.2, "own": torch.zeros(2), "processor": object()}  # of any type, in Python
    sampling = {"temperature": 0.7, "top_p": 0.9, "seed": 3, "extra_args": own}
    assert await known(guide, held, request("b", params=sampling, priority=3))


async def test_consistency_passes_are_remembered_too(guide, held):
    found = result()
    for id, given, share, begins in (
        ("a", found, 0.05, True), ("b", found, 0.05, False), ("c", found, 0.5, True),
        ("d", result(2), 0.05, True),
        ("e", replace(found, answer=replace(found.answer, token_ids=(7, 3))), 0.05, True),
        ("f", result(), 0.05, False),
    ):  # fmt: skip
        before = len(held.begun)
        task = asyncio.create_task(guide.confirm(request(id), given, share))
        await settle()
        assert (len(held.begun) > before) is begins, id
        if begins:
            held.answer(f"confirm {id}", share)
        assert await task == share


async def test_equal_requests_at_once_share_one_look(guide, held):
    tasks = [await look(guide, request(id)) for id in "abc"]
    assert held.begun == ["a"]
    held.answer("a", result())
    assert len({id(found.answer) for found in await asyncio.gather(*tasks)}) == 1


@pytest.mark.parametrize("how", ["cancelled", "aborted by id"])
async def test_a_shared_look_goes_on_while_somebody_waits(guide, held, how):
    first, second = await look(guide, request("a")), await look(guide, request("b"))
    if how == "cancelled":
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    else:
        await guide.abort("a")
        with pytest.raises(RequestAborted):
            await first
    await settle()
    assert list(held.running) == ["a"]
    held.answer("a", result())
    assert (await second).answer.text == "yes"


@pytest.mark.parametrize("how", ["cancelled", "aborted by id"])
async def test_a_look_that_nobody_waits_for_ends(guide, held, how):
    tasks = [await look(guide, request(id)) for id in "ab"]
    for id, task in zip("ab", tasks, strict=True):
        if how == "cancelled":
            task.cancel()
        else:
            await guide.abort(id)
    again = await look(guide, request("c"))  # before the first one's end is through
    await asyncio.wait(tasks)
    await settle()
    assert list(held.running) == ["c"]
    held.answer("c", result())
    assert (await again).answer.text == "yes"


async def test_a_failure_is_everybodys_and_not_remembered(guide, held):
    tasks = [await look(guide, request(id)) for id in "ab"]
    held.fail("a", SILENT)
    for task in tasks:
        with pytest.raises(GuideError) as caught:
            await task
        assert caught.value.reason == Reason.GUIDE_TIMEOUT
    assert not await known(guide, held, request("c"))


async def test_the_latest_are_remembered(guide, held):
    salts = [request(str(number), prompt={"cache_salt": str(number)}) for number in range(5)]
    for asked in salts[:4]:
        assert not await known(guide, held, asked)
    assert await known(guide, held, salts[0])
    assert not await known(guide, held, salts[4])
    assert await known(guide, held, salts[0])
    assert not await known(guide, held, salts[1])


async def test_few_large_ones_are_remembered(guide, held, monkeypatch):
    monkeypatch.setattr(remembered, "MOST_VISUAL_TOKENS", 20)  # of 8 each
    salts = [request(str(number), prompt={"cache_salt": str(number)}) for number in range(3)]
    for asked in salts:
        assert not await known(guide, held, asked)
    assert await known(guide, held, salts[1])
    assert not await known(guide, held, salts[0])


async def test_what_one_caller_changes_is_no_other_caller_s(guide, held):
    tasks = [await look(guide, request(name)) for name in "ab"]
    held.answer("a", result())
    for one in (await tasks[0], await tasks[1]):
        assert one.importance[0].tolist() == [1] * 5
        one.importance[0].zero_()
    assert (await (await look(guide, request("c")))).importance[0].tolist() == [1] * 5
