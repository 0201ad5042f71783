"""Importance, answers and caches of every family, against transformers on the same weights."""

import asyncio

import pytest
import torch

from tests.support.compare import assert_known_images_are_looked_at_alike, assert_same_answer
from tests.support.engines import inputs, user
from tests.support.images import random_image
from tests.support.odd_conversations import check_nothing_is_kept_alive
from tools.reference import select
from vllm_sgl.prune.rewrite import prune_prompt
from vllm_sgl.visual.items import visual_counts

from .cases import ENGINE_CASES
from .checks import (
    check_conversation,
    check_exit,
    check_late_tokens,
    check_masks_are_kept_apart,
    check_walk,
    expected,
    in_little_cache,
    random_masks,
)

#: Image sizes of a request, and its question.
REQUESTS = (
    ([(112, 112)], "What is written on the sign?"),
    ([(300, 200)], "Read the number on the back of the shirt."),
    ([(300, 200), (120, 360)], "Which of the two images has more red shapes?"),
)


def render(engines, sizes, question, seed=0):
    images = [random_image(seed + number, *size) for number, size in enumerate(sizes)]
    return engines.render_chat([user(question, *images)])


@pytest.fixture(scope="module", params=ENGINE_CASES)
def case(request):
    """(family, position ids)"""
    return request.param


@pytest.fixture(scope="module")
def prompts(engines):
    return [render(engines, *request) for request in REQUESTS]


@pytest.mark.parametrize("retention", [0.35, 0.09])
async def test_the_whole_walk_agrees(engines, prompts, retention):
    await asyncio.gather(*(check_walk(engines, prompt, retention) for prompt in prompts))


async def test_masks_of_the_same_images_are_kept_apart(engines):
    sizes, question = REQUESTS[2]
    await check_masks_are_kept_apart(engines, render(engines, sizes, question * 4))


async def test_late_tokens_keep_their_positions(engines, prompts):
    for prompt in prompts[1:]:
        await check_late_tokens(engines, prompt)


#: Before the first turn; fills a block of the prefix cache.
SYSTEM = "You answer questions about signs. " * 15
#: Turns of a conversation: images that come with the question, and the question.
TURNS = (
    ([(300, 200)], "How many red shapes are there on it?"),
    ([], "And what is written on the sign?"),
    ([(56, 56)], "Is it on this one, too?"),
    ([], "Translate that."),
)


def conversation(engines, seed):
    """Prompts of its turns. Some templates write an answer otherwise than they ask for it: no more than the
    prompt up to the last image is then known of the turn before, and must fill a block."""
    messages, prompts = [{"role": "system", "content": f"Conversation {seed}. {SYSTEM}"}], []
    for number, (sizes, question) in enumerate(TURNS):
        images = [random_image(seed + 10 * number + at, *size) for at, size in enumerate(sizes)]
        messages.append(user(question, *images))
        prompts.append(engines.render_chat(messages))
        messages.append({"role": "assistant", "content": "The left one."})
    return prompts


@pytest.mark.parametrize(("mode", "retention"), [("sticky", 0.35), ("late", 0.09)])
async def test_turns_of_a_conversation_agree(engines, mode, retention):
    """What was kept stays, a new image has its own share, and later questions add what is missing."""
    prompts = conversation(engines, seed=int(700 + 100 * retention))
    reports = [one.report for one in await check_conversation(engines, prompts, mode, retention)]
    kept = [part.tolist() for part in reports[-1].kept]
    for report, items in zip(reports, (1, 1, 2, 2), strict=True):
        assert [part.tolist() for part in report.kept] == kept[:items]
    assert [report.reason for report in reports] == [None, "follow_up", None, "follow_up"]
    assert reports[1].reused_tokens == reports[0].kept_tokens
    assert reports[3].reused_tokens == reports[2].kept_tokens
    if mode == "sticky":
        assert [report.guide_seconds is None for report in reports] == [False, True, False, True]
        assert not any(report.late_tokens for report in reports)


async def test_one_image_whole_and_the_other_pruned(engines, prompts):
    prompt = prompts[2]
    first, second = (torch.arange(count) for count in visual_counts(prompt))
    for kept in ([first, random_masks(prompt, 3)[1]], [random_masks(prompt, 4)[0], second]):
        answer = await engines.answer_large(prune_prompt(prompt, kept), 4)
        assert_same_answer(answer, expected(engines, prompt, kept))


async def test_every_image_keeps_what_it_must(engines, prompts):
    """One token for two images: where nothing else is left of an image, it keeps its best one. The engines
    live on, which an empty image would end."""
    prompt = prompts[2]
    outcome = await engines.walk(prompt, sgl_retention=0.001)
    answer = await engines.answer_large(outcome.prompt, 4)
    tokens = engines.reference.generate(*inputs(prompt), 8).tokens
    kept = select(engines.reference.importance(*inputs(prompt), tokens), 0.001, engines.reference.least)
    assert [part.tolist() for part in outcome.report.kept] == [part.tolist() for part in kept]
    assert_same_answer(answer, expected(engines, prompt, kept))


async def test_known_images_are_looked_at_as_new_ones(engines):
    """The guide's prefix cache knows them, and where they lie: other sizes have other positions."""
    sizes, _ = REQUESTS[2]
    prompts = [render(engines, sizes, question, seed=70) for question in ("Who?", "What time is it? " * 3)]
    await assert_known_images_are_looked_at_alike(engines, *prompts)


async def test_only_images_not_seen_lately_are_encoded(engines):
    """One of two images is known: the features of the other are its own."""
    model = engines.large.runner.model
    known = render(engines, [(300, 200)], "Who?", seed=50)
    both = engines.render_chat([user("Who?", random_image(51, 112, 112), random_image(50, 300, 200))])
    counts = []
    for prompt in (known, both, both):
        kept, before = random_masks(prompt, len(counts)), model._features.misses
        answer = await engines.answer_large(prune_prompt(prompt, kept), 4)
        assert_same_answer(answer, expected(engines, prompt, kept))
        counts.append(model._features.misses - before)
    # Tiles, where a family has them: of the first prompt's image, and of the second one's other image.
    new = [engines.reader.items(prompt)[0].tiles for prompt in (known, both)]
    assert counts == [*new, 0]


async def test_one_name_for_images_of_two_sizes(engines):
    """Clients may name images themselves. What is kept under a name serves images of one size alone: other
    features than a prompt has places for would end the engine."""
    first, other = (render(engines, [size], "Who?", seed=60) for size in ((112, 112), (300, 200)))
    prompt = {**other, "mm_hashes": first["mm_hashes"]}
    for one in (first, prompt):
        kept = random_masks(one, 5)
        answer = await engines.answer_large(prune_prompt(one, kept), 4)
    if "image" not in engines.tiles:  # tiles are all of one size: whoever names them alike gets the first
        assert_same_answer(answer, expected(engines, prompt, kept))


async def test_exits_are_scored_as_the_reference_scores_them(engines, prompts):
    for prompt in prompts[:2]:
        await check_exit(engines, prompt)


async def test_chunked_prefill_in_little_cache_agrees(case, pair):
    with in_little_cache(case, pair) as engines:
        prompts = [render(engines, *request) for request in REQUESTS]
        await asyncio.gather(*(check_walk(engines, prompt, 0.35) for prompt in prompts))
        await asyncio.gather(*(check_late_tokens(engines, prompt) for prompt in prompts[1:]))


async def test_nothing_of_a_request_is_kept_alive(engines, prompts):
    for prompt in prompts:
        outcome = await engines.walk(prompt, sgl_exit_threshold=1.0)
        check_nothing_is_kept_alive(outcome, prompt)
