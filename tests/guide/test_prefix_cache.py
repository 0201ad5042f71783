"""The guide's own prefix cache: what it computed of an image serves the next question about it, and no query
row that counts is left out."""

import asyncio
from typing import get_args

import pytest
import torch

from tests.support.compare import assert_same_importance
from tests.support.engines import Engines, inputs, user
from tests.support.images import random_image
from vllm_sgl.config import QueryRows
from vllm_sgl.guide.local.recorder import query_rows
from vllm_sgl.visual.items import visual_end

CHOICES = get_args(QueryRows)
#: Relative error allowed between a look with hits and one without.
TOLERANCE = 1e-5
#: Whole and in pieces that end inside of prompts.
PREFILL = {"whole": 2048, "chunked": 48}


@pytest.fixture(scope="module", params=PREFILL)
def engines(request, qwen2_pair):
    small_args = {"max_num_batched_tokens": PREFILL[request.param]}
    engines = Engines(qwen2_pair, with_large=False, small_args=small_args)
    yield engines
    engines.shutdown()


@pytest.fixture
def prompts(engines):
    """Two questions about the same images, and a second turn."""
    images = random_image(40, 300, 200), random_image(41, 360, 120)
    first = user("Which of the two images has more red shapes?", *images)
    answer = {"role": "assistant", "content": "The first one."}
    conversations = (
        [first], [user("Who?", *images)], [first, answer, user("How many people are in it? " * 3)]
    )  # fmt: skip
    return [engines.render_chat(messages) for messages in conversations]


def forget(engines):
    assert engines.small.engine.reset_prefix_cache()


def last_turn(engines, prompt):
    return engines.guide._turns.last(prompt["prompt_token_ids"], visual_end(prompt))


def cap(engines, prompt, choice):
    """The most tokens that a hit may have."""
    end = len(prompt["prompt_token_ids"])
    first = query_rows(choice, visual_end(prompt), end, end + 1, last_turn(engines, prompt)).start - 1
    size = engines.small.vllm_config.cache_config.block_size
    return first // size * size


def assert_same(found, expected):
    assert found.answer.token_ids == expected.answer.token_ids
    torch.testing.assert_close(
        torch.tensor(found.answer.logprobs), torch.tensor(expected.answer.logprobs), atol=1e-4, rtol=0
    )
    for ours, theirs in zip(found.importance, expected.importance, strict=True):
        assert float(((ours - theirs).abs() / theirs).max()) <= TOLERANCE


@pytest.mark.parametrize("choice", CHOICES)
async def test_a_known_image_is_not_computed_again(engines, prompts, choice):
    async def looks():
        return [await engines.look(prompt, query_rows=choice) for prompt in prompts]

    fresh = []
    for prompt in prompts:
        forget(engines)
        result, (known,) = await engines.known_to_small(engines.look(prompt, query_rows=choice))
        assert known == 0
        turn = last_turn(engines, prompt)
        expected = engines.reference.importance(*inputs(prompt), result.answer.token_ids, choice, turn)
        assert_same_importance(result.importance, expected)
        fresh.append(result)
    forget(engines)
    first, hits = await engines.known_to_small(looks())
    # The images and the text before them are common to all; the second turn finds the first one's question.
    size = engines.small.vllm_config.cache_config.block_size
    common = visual_end(prompts[0]) // size * size
    assert hits[0] == 0
    assert hits[1] == min(common, cap(engines, prompts[1], choice)) > 0
    assert common - size < hits[2] <= cap(engines, prompts[2], choice)
    again, hits = await engines.known_to_small(looks())
    assert hits == [cap(engines, prompt, choice) for prompt in prompts]
    together = await asyncio.gather(*(engines.look(prompt, query_rows=choice) for prompt in prompts))
    for results in (first, again, together):
        for found, expected in zip(results, fresh, strict=True):
            assert_same(found, expected)


async def test_equal_images_at_once_are_computed_once(engines, prompts):
    """A request may find blocks that are being computed in the very step that it begins in."""
    fresh = []
    for prompt in prompts:
        forget(engines)
        fresh.append(await engines.look(prompt))
    forget(engines)
    found = await asyncio.gather(*(engines.look(prompt) for prompt in (*prompts, *prompts)))
    for result, expected in zip(found, (*fresh, *fresh), strict=True):
        assert_same(result, expected)
    assert len(engines.small.recorder) == 0


async def test_a_consistency_pass_leaves_nothing_in_the_cache(engines, prompts):
    """Its prompt has a mask and an answer of its own, and does not come again."""
    pool = engines.small.scheduler.kv_cache_manager.block_pool
    outcome = await engines.walk(prompts[2], sgl_exit_threshold=0.0)
    assert outcome.report.decision == "exit"
    forget(engines)
    result = await engines.look(prompts[2])
    kept = len(pool.cached_block_hash_to_block)
    assert kept > 0
    request = engines.request(prompts[2])
    known = await engines.known_to_small(engines.guide.confirm(request, result, 0.9))
    assert known[1] == [0]
    assert len(pool.cached_block_hash_to_block) == kept
    assert pool.get_usage() == 0
    _, (hits,) = await engines.known_to_small(engines.look(prompts[2]))
    assert hits == cap(engines, prompts[2], engines.config.query_rows)


async def test_cache_salts_are_kept_apart(engines, prompts):
    for salt, known in (("one", False), ("two", False), ("one", True)):
        _, (hits,) = await engines.known_to_small(engines.look({**prompts[0], "cache_salt": salt}))
        assert bool(hits) is known, salt
