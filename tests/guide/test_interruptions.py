"""What may happen to a guide request inside the small engine: preemption, abort, hits that hide rows."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import get_args

import pytest
from vllm.v1.core.sched.scheduler import Scheduler

from tests.support.compare import assert_same_importance
from tests.support.engines import Engines, inputs
from vllm_sgl.config import QueryRows
from vllm_sgl.core import Reason
from vllm_sgl.engine.in_flight import Guiding
from vllm_sgl.errors import GuideError, RequestAborted

QUESTIONS = ("What is written on the sign?", "Read the number.", "How many people are there?", "Who?")
#: In prompts of one turn its rows are those of the whole prompt.
CHOICES = [choice for choice in get_args(QueryRows) if "turn" not in choice]
# 12 blocks, at 1 KiB a token: two prompts of five blocks fit, but not two prompts and their answers.
TIGHT = {"kv_cache_memory_bytes": 12 * 32 << 10, "block_size": 32}


def make(pair, small_args):
    return Engines(pair, with_large=False, small_args=small_args)


def assert_right(engines, prompt, result, query_rows="prompt+generated"):
    expected = engines.reference.importance(*inputs(prompt), result.answer.token_ids, query_rows)
    assert_same_importance(result.importance, expected)


@pytest.fixture(scope="module", params=["whole", "chunked"])
def tight(request, qwen2_pair):
    budget = {"whole": 2048, "chunked": 48}[request.param]
    engines = make(qwen2_pair, {**TIGHT, "max_model_len": 256, "max_num_batched_tokens": budget})
    yield engines
    engines.shutdown()


async def test_preempted_requests_count_every_row_once(tight, monkeypatch):
    preempted = []
    preempt = tight.small.scheduler._preempt_request

    def counting(request, *args, **kwargs):
        preempted.append((request.request_id, request.num_computed_tokens, request.num_prompt_tokens))
        preempt(request, *args, **kwargs)

    monkeypatch.setattr(tight.small.scheduler, "_preempt_request", counting)
    questions = [*QUESTIONS, "Count"]
    prompts = [tight.render(question, (300, 200), seed=i) for i, question in enumerate(questions)]
    # Answers of equal, known length: each needs new blocks while the others still hold theirs.
    looks = (
        tight.look(prompt, max_tokens=40, ignore_eos=True, query_rows=choice)
        for prompt, choice in zip(prompts, CHOICES, strict=True)
    )
    results = await asyncio.gather(*looks)
    assert preempted, "nothing was preempted: the KV cache is too large for this test"
    assert any(computed > prompt for _, computed, prompt in preempted), "none had counted generated rows"
    for prompt, result, choice in zip(prompts, results, CHOICES, strict=True):
        assert len(result.answer.token_ids) == 40
        assert_right(tight, prompt, result, choice)
    assert len(tight.small.recorder) == 0


@pytest.fixture(scope="module")
def engines(qwen2_pair):
    engines = make(qwen2_pair, {})
    yield engines
    engines.shutdown()


async def until_tracked(engines, count):
    while len(engines.small.recorder) < count:
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["cancelled", "aborted by id"])
async def test_aborted_request_is_forgotten_and_others_are_right(engines, how):
    prompts = [engines.render(question, (300, 200), seed=3) for question in QUESTIONS[:3]]
    others = [asyncio.create_task(engines.look(prompt, max_tokens=24)) for prompt in prompts[:2]]
    gone = asyncio.create_task(engines.look(prompts[2], max_tokens=24, id="gone", ignore_eos=True))
    await until_tracked(engines, 3)
    if how == "cancelled":
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    else:
        await engines.guide.abort("gone")
        with pytest.raises(RequestAborted):
            await gone
    for prompt, result in zip(prompts, await asyncio.gather(*others), strict=False):
        assert_right(engines, prompt, result)
    await asyncio.sleep(0)  # nobody waits for a discarded entry
    assert len(engines.small.recorder) == 0
    assert not engines.small.engine.has_unfinished_requests()


async def test_abort_while_the_importance_is_fetched(engines, monkeypatch):
    """The request is in neither engine then, so that no engine could abort it."""
    fetching, go_on = asyncio.Event(), asyncio.Event()
    rpc = engines.small.collective_rpc

    async def slow(*args, **kwargs):
        fetching.set()
        await go_on.wait()
        return await rpc(*args, **kwargs)

    monkeypatch.setattr(engines.small, "collective_rpc", slow)
    guiding = Guiding()
    prompt = engines.render(QUESTIONS[0], (300, 200), seed=5)
    task = asyncio.create_task(guiding.through("gone", 1, engines.look(prompt, id="gone")))
    await fetching.wait()
    assert not engines.small.engine.has_unfinished_requests()
    assert guiding.abort(["gone"]) == ["gone"]
    with pytest.raises(RequestAborted):
        await task
    go_on.set()
    monkeypatch.undo()
    assert_right(engines, prompt, await engines.look(prompt))
    await asyncio.sleep(0)
    assert len(engines.small.recorder) == 0


async def test_every_request_aborted_leaves_an_engine_that_works(engines):
    prompt = engines.render(QUESTIONS[0], (300, 200), seed=4)
    tasks = [asyncio.create_task(engines.look(prompt, max_tokens=24)) for _ in range(3)]
    await until_tracked(engines, 3)
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
    assert_right(engines, prompt, await engines.look(prompt))
    assert len(engines.small.recorder) == 0


#: Long enough for some of its rows to lie in full blocks, which are what the cache holds.
LONG = "What is written on the sign next to the door? " * 4


async def test_rows_hidden_by_the_prefix_cache_are_noticed(engines, monkeypatch):
    """As if our scheduler did not end hits in time."""
    scheduler = engines.small.scheduler
    prompt = engines.render(LONG, (112, 112), seed=8)
    assert_right(engines, prompt, await engines.look(prompt))  # nothing cached yet
    uncapped = partial(Scheduler._get_local_prefix_cache_hit, scheduler)
    monkeypatch.setattr(scheduler, "_get_local_prefix_cache_hit", uncapped)
    with pytest.raises(GuideError, match="prefix-cache hit") as error:
        await engines.look(prompt)
    assert error.value.reason == Reason.GUIDE_FAILED
    monkeypatch.undo()
    assert_right(engines, prompt, await engines.look(prompt))


def skip_second_layer(recorder, add_layer):
    calls = iter(range(1 << 30))
    return lambda *args: add_layer(*args) if next(calls) % 2 == 0 else None


def skip_first_row(recorder, add_layer):
    def shortened(*args):
        recorder._step.first_row += 1
        add_layer(*args)
        recorder._step.first_row -= 1

    return shortened


def count_twice(recorder, add_layer):
    def twice(*args):
        add_layer(*args)
        add_layer(*args)

    return twice


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("tamper", [skip_second_layer, skip_first_row, count_twice])
async def test_incomplete_capture_is_noticed(engines, monkeypatch, tamper, choice):
    prompt = engines.render(QUESTIONS[0], (300, 200))
    recorder = engines.small.recorder
    monkeypatch.setattr(recorder, "add_layer", tamper(recorder, recorder.add_layer))
    with pytest.raises(GuideError, match=r"capture is incomplete: total mass [\d.]+, expected \d+") as error:
        await engines.look(prompt, query_rows=choice)
    assert error.value.reason == Reason.GUIDE_FAILED
    monkeypatch.undo()
    assert_right(engines, prompt, await engines.look(prompt, query_rows=choice), choice)


async def test_worker_that_lost_its_memory_is_noticed(engines, monkeypatch):
    """An entry evicted before it was collected: as far as the worker knows, it never saw the request."""
    prompt = engines.render(QUESTIONS[0], (300, 200))
    recorder = engines.small.recorder
    take = recorder.take

    def forgetful(keys):
        recorder._entries.clear()
        return take(keys)

    monkeypatch.setattr(recorder, "take", forgetful)
    with pytest.raises(GuideError, match="capture is incomplete"):
        await engines.look(prompt)
