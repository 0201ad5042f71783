"""Videos of every family that has them, against transformers on the same weights and the same kept tokens."""

import asyncio

import pytest
import torch

from tests.support.compare import assert_same_answer
from tests.support.engines import user
from tests.support.images import random_image, random_video
from vllm_sgl.prune.rewrite import prune_prompt
from vllm_sgl.visual.items import visual_counts

from .cases import VIDEO_CASES
from .checks import (
    check_exit,
    check_late_tokens,
    check_masks_are_kept_apart,
    check_walk,
    expected,
    in_little_cache,
)

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


@pytest.mark.parametrize("retention", [0.35, 0.09])
async def test_the_whole_walk_agrees(engines, prompts, retention):
    """All of a request's frames and images are ranked together."""
    await asyncio.gather(*(check_walk(engines, prompt, retention) for prompt in prompts.values()))


async def test_late_tokens_keep_their_positions(engines, prompts):
    for prompt in prompts.values():
        await check_late_tokens(engines, prompt)


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
    # Long enough for a block of the KV cache, in every family.
    await check_masks_are_kept_apart(engines, engines.render_chat([user(QUESTION * 8, *REQUESTS["two"])]))


async def test_exits_are_scored_as_the_reference_scores_them(engines, prompts):
    await check_exit(engines, prompts["mixed"])


async def test_chunked_prefill_in_little_cache_agrees(case, pair):
    with in_little_cache(case, pair) as engines:
        rendered = [engines.render_chat([user(QUESTION, *media)]) for media in REQUESTS.values()]
        await asyncio.gather(*(check_walk(engines, prompt, 0.35) for prompt in rendered))
