"""Videos of every family that has them, against transformers on the same weights and the same kept tokens."""

import asyncio

import pytest
import torch

from tests.support.compare import assert_same_answer, assert_same_importance
from tests.support.engines import Engines, inputs, user
from tests.support.images import random_image, random_video
from tools.reference import select
from vllm_sgl.prune.base import kept_count
from vllm_sgl.prune.rewrite import prune_prompt
from vllm_sgl.visual.items import visual_counts

from .cases import VIDEO_CASES
from .conftest import CONTEXT

QUESTION = "Read the number on the back of the shirt."
WIDTH, HEIGHT = 112, 84
IMAGE = random_image(3, 300, 200)
#: What requests are about; lists of frames are videos. A last frame without a pair is in one of them.
REQUESTS = {
    "one": [random_video(0, WIDTH, HEIGHT, 8)],
    "two": [random_video(1, WIDTH, HEIGHT, 6), random_video(2, HEIGHT, WIDTH, 3)],
    "mixed": [IMAGE, random_video(4, WIDTH, HEIGHT, 4)],
    "mixed the other way": [random_video(5, HEIGHT, WIDTH, 4), IMAGE],
}


@pytest.fixture(scope="module", params=VIDEO_CASES)
def case(request):
    """(family, position ids)"""
    return request.param


@pytest.fixture(scope="module")
def prompts(engines):
    return {name: engines.render_chat([user(QUESTION, *media)]) for name, media in REQUESTS.items()}


def expected(engines, prompt, kept, max_tokens=4):
    return engines.large_reference.generate(
        *inputs(prompt), max_tokens, keep=kept, positions=engines.config.positions
    )


def random_masks(prompt, seed, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    masks = select([torch.rand(count, generator=generator) for count in visual_counts(prompt)], share)
    return [mask if len(mask) else torch.tensor([0]) for mask in masks]


async def check_walk(engines, prompt, retention):
    """Importance, the mask that it makes, and the answer on it."""
    outcome = await engines.walk(prompt, sgl_retention=retention)
    report = outcome.report
    assert (report.decision, report.reason) == ("prune", None)
    assert report.visual_tokens == sum(visual_counts(prompt))
    assert report.kept_tokens == kept_count(retention, report.visual_tokens)
    tokens = engines.reference.generate(*inputs(prompt), 8).tokens
    importance = engines.reference.importance(*inputs(prompt), tokens)
    assert_same_importance(report.importance, importance)
    kept = select(importance, retention, engines.reference.least)
    assert [part.tolist() for part in report.kept] == [part.tolist() for part in kept]
    answer = await engines.answer_large(outcome.prompt, 4)
    assert_same_answer(answer, expected(engines, prompt, kept))


@pytest.mark.parametrize("retention", [0.35, 0.09])
async def test_the_whole_walk_agrees(engines, prompts, retention):
    """All of a request's frames and images are ranked together."""
    await asyncio.gather(*(check_walk(engines, prompt, retention) for prompt in prompts.values()))


async def test_whole_videos_are_answered(engines, prompts):
    """Left alone, and all at once, so that videos of different lengths are in one batch."""
    answers = await asyncio.gather(*(engines.answer_large(prompt, 4) for prompt in prompts.values()))
    for prompt, answer in zip(prompts.values(), answers, strict=True):
        assert_same_answer(answer, expected(engines, prompt, None))


async def test_frames_of_which_nothing_is_kept(engines):
    """They are not encoded, unless a later question needs them; what tells the frames apart stays."""
    model = engines.large.runner.model
    prompt = engines.render_chat([user(QUESTION, random_video(7, WIDTH, HEIGHT, 8))])
    (item,) = engines.reader.items(prompt)
    each, count = item.tile_tokens, item.tiles
    assert count == (8 if each * 8 + item.rest == item.visual_tokens else 4)
    for opened, new in (([1], 1), ([1, count - 1], 1), (range(count), count - 2), ([0, 2], 0)):
        kept = [torch.cat([torch.arange(each * tile, each * tile + each, 2) for tile in opened])]
        pruned, before = prune_prompt(prompt, kept, engines.tiles), model._features.misses
        (sent,) = pruned["mm_kwargs"]["video"]
        rows = [
            len(whole[engines.tiles["video"].pixels].data)
            for whole in (sent, prompt["mm_kwargs"]["video"][0])
        ]
        assert rows[0] * count == rows[1] * len(opened)
        assert_same_answer(await engines.answer_large(pruned, 4), expected(engines, prompt, kept))
        assert model._features.misses - before == new, opened


async def test_a_video_that_keeps_as_little_as_it_can(engines, prompts):
    """Nothing but markers where a family has them; the engines live on, which an empty item would end."""
    for name in ("two", "mixed", "mixed the other way"):
        prompt = prompts[name]
        least = [item.least for item in engines.reader.items(prompt)]
        kept = [torch.arange(count) for count in least]
        kept[0] = torch.tensor([visual_counts(prompt)[0] - 1])
        pruned = prune_prompt(prompt, kept, engines.tiles)
        assert visual_counts(pruned) == tuple(map(len, kept))
        assert_same_answer(await engines.answer_large(pruned, 4), expected(engines, prompt, kept))
    outcome = await engines.walk(prompts["two"], sgl_retention=0.001)
    answer = await engines.answer_large(outcome.prompt, 4)
    assert_same_answer(answer, expected(engines, prompts["two"], outcome.report.kept))


async def test_masks_of_the_same_videos_are_kept_apart(engines):
    """Two masks, the whole videos and the first mask again, one after the other and together."""
    # Long enough for a block of the KV cache, in every family.
    prompt = engines.render_chat([user(QUESTION * 8, *REQUESTS["two"])])
    masks = [random_masks(prompt, seed, share=0.8) for seed in (1, 2)]
    asked = [*(prune_prompt(prompt, mask, engines.tiles) for mask in masks), prompt]
    wanted = [expected(engines, prompt, mask) for mask in (*masks, None)]
    for _ in range(2):
        answers = [await engines.answer_large(one, 4) for one in asked]
        together = await asyncio.gather(*(engines.answer_large(one, 4) for one in asked))
        for one, two, answer in zip(answers, together, wanted, strict=True):
            assert_same_answer(one, answer)
            assert_same_answer(two, answer)
    assert await engines.cached_tokens(asked[0]) > 0
    one, two, _ = wanted
    assert one.tokens != two.tokens or not torch.allclose(one.logprobs, two.logprobs, atol=2e-2)


async def test_exits_are_scored_as_the_reference_scores_them(engines, prompts):
    prompt = prompts["mixed"]
    outcome = await engines.walk(prompt, max_tokens=6, sgl_exit_threshold=0.0)
    answer = engines.reference.generate(*inputs(prompt), 6)
    assert outcome.report.decision == "exit"
    assert list(outcome.answer.token_ids) == answer.tokens
    consistent = engines.reference.consistency(
        *inputs(prompt), answer.tokens, positions=engines.config.positions
    )
    assert outcome.report.consistency == pytest.approx(consistent, rel=1e-2)


async def test_chunked_prefill_in_little_cache_agrees(case, pair):
    """Prefill in pieces of 48 tokens, and a KV cache that holds little more than one request."""
    engines = Engines(
        pair, sgl={"positions": case[1]}, max_model_len=CONTEXT, enable_prefix_caching=True,
        small_args={"max_num_batched_tokens": 48, "kv_cache_memory_bytes": 3 << 20},
        max_num_batched_tokens=48, kv_cache_memory_bytes=6 << 20,
    )  # fmt: skip
    try:
        rendered = [engines.render_chat([user(QUESTION, *media)]) for media in REQUESTS.values()]
        await asyncio.gather(*(check_walk(engines, prompt, 0.35) for prompt in rendered))
    finally:
        engines.shutdown()
