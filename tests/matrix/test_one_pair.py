"""Families that add a decoder or little more to another: everything at once, in one pair of engines each.

Prompts are prefilled in pieces and share a small KV cache: images, videos and both, alone and together.
"""

import asyncio

import pytest
import torch

from tests.support.compare import assert_same_answer
from tests.support.engines import Engines, user
from tests.support.images import random_image, random_video
from vllm_sgl.prune.rewrite import prune_prompt
from vllm_sgl.visual.items import visual_counts

from .cases import ONE_PAIR_EACH
from .checks import CONTEXT, check_exit, check_masks_are_kept_apart, check_walk, expected, random_masks

QUESTION = "Read the number on the back of the shirt."
WIDE, TALL, CLIP = random_image(0, 300, 200), random_image(1, 120, 360), (112, 84)
IMAGES = ([random_image(2, 112, 112)], [WIDE], [WIDE, TALL])
VIDEOS = ([random_video(0, *CLIP, 8)], [TALL, random_video(4, *CLIP, 3)])


@pytest.fixture(scope="module", params=ONE_PAIR_EACH, ids=lambda family: family.name)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def engines(family, pair_of):
    engines = Engines(
        pair_of(family), enable_prefix_caching=True, max_model_len=CONTEXT, max_num_batched_tokens=96,
        small_args={"max_num_batched_tokens": 96, "kv_cache_memory_bytes": 6 << 20},
        kv_cache_memory_bytes=12 << 20,
    )  # fmt: skip
    yield engines
    engines.shutdown()


@pytest.fixture(scope="module")
def prompts(engines, family):
    media = [*IMAGES, *(VIDEOS if family.videos else ())]
    return [engines.render_chat([user(QUESTION, *one)]) for one in media]


async def test_the_whole_walk_agrees(engines, prompts):
    assert engines.verdict.way == "shared"
    await asyncio.gather(
        *(check_walk(engines, prompt, retention) for prompt in prompts for retention in (0.35, 0.09))
    )


async def test_whole_prompts_and_those_of_which_one_item_is_whole(engines, prompts):
    asked = [(prompt, [torch.arange(count) for count in visual_counts(prompt)]) for prompt in prompts]
    asked += [(prompt, [kept[0], *random_masks(prompt, 3)[1:]]) for prompt, kept in asked if len(kept) > 1]
    answers = await asyncio.gather(
        *(engines.answer_large(prune_prompt(prompt, kept, engines.tiles), 4) for prompt, kept in asked)
    )
    for (prompt, kept), answer in zip(asked, answers, strict=True):
        assert_same_answer(answer, expected(engines, prompt, kept))


async def test_masks_of_the_same_items_are_kept_apart(engines, family):
    await check_masks_are_kept_apart(engines, engines.render_chat([user(QUESTION * 8, WIDE, TALL)]))
    if family.videos:
        clip = random_video(2, *CLIP, 6)
        await check_masks_are_kept_apart(engines, engines.render_chat([user(QUESTION * 8, clip)]))


async def test_frames_of_which_nothing_is_kept_are_not_encoded(engines, family):
    if not family.videos:
        pytest.skip("takes no videos")
    prompt = engines.render_chat([user(QUESTION, random_video(7, *CLIP, 8))])
    (item,) = engines.reader.items(prompt)
    kept = [torch.arange(item.tile_tokens, 2 * item.tile_tokens, 2)]
    before = engines.large.runner.model._features.misses
    answer = await engines.answer_large(prune_prompt(prompt, kept, engines.tiles), 4)
    assert_same_answer(answer, expected(engines, prompt, kept))
    assert engines.large.runner.model._features.misses - before == 1


async def test_exits_are_scored_as_the_reference_scores_them(engines, prompts):
    await check_exit(engines, prompts[1])
