"""Importance, answers and caches of every family, against transformers on the same weights."""

import asyncio

import pytest
import torch

from tests.support.compare import assert_same_answer, assert_same_importance
from tests.support.engines import Engines, inputs, user
from tests.support.images import random_image
from tools.reference import select
from vllm_sgl.prune.rewrite import prune_prompt
from vllm_sgl.visual.items import visual_counts

from .cases import ENGINE_CASES
from .conftest import CONTEXT

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


def expected(engines, prompt, kept, max_tokens=4):
    return engines.large_reference.generate(
        *inputs(prompt), max_tokens, keep=kept, positions=engines.config.positions
    )


def random_masks(prompt, seed, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    masks = select([torch.rand(count, generator=generator) for count in visual_counts(prompt)], share)
    # At least one token of each image: not every family can do without.
    return [mask if len(mask) else torch.tensor([0]) for mask in masks]


async def test_importance_agrees(engines, prompts):
    results = await asyncio.gather(*(engines.look(prompt) for prompt in prompts))
    for prompt, result in zip(prompts, results, strict=True):
        answer = engines.reference.generate(*inputs(prompt), 8)
        assert list(result.answer.token_ids) == answer.tokens
        assert_same_importance(
            result.importance, engines.reference.importance(*inputs(prompt), answer.tokens)
        )


@pytest.mark.parametrize("retention", [0.35, 0.09])
async def test_the_whole_walk_agrees(engines, prompts, retention):
    """The mask is the one that the reference of the small model picks, the answer the large one's on it."""
    outcomes = await asyncio.gather(*(engines.walk(prompt, sgl_retention=retention) for prompt in prompts))
    answers = await asyncio.gather(*(engines.answer_large(outcome.prompt, 4) for outcome in outcomes))
    for prompt, outcome, answer in zip(prompts, outcomes, answers, strict=True):
        report = outcome.report
        assert (report.decision, report.reason) == ("prune", None)
        assert len(outcome.prompt["prompt_token_ids"]) == len(prompt["prompt_token_ids"]) - (
            report.visual_tokens - report.kept_tokens
        )
        assert_same_answer(answer, expected(engines, prompt, report.kept))


async def test_masks_of_the_same_images_are_kept_apart(engines):
    """Two masks, the whole images and the first mask again, one after the other and together."""
    sizes, question = REQUESTS[2]
    prompt = render(engines, sizes, question * 4)
    # Enough is left to fill a block of the prefix cache.
    masks = [random_masks(prompt, seed, share=0.8) for seed in (1, 2)]
    asked = [prune_prompt(prompt, masks[0]), prune_prompt(prompt, masks[1]), prompt]
    kept = [*masks, None]
    for again in range(2):
        answers = [await engines.answer_large(one, 4) for one in asked]
        together = await asyncio.gather(*(engines.answer_large(one, 4) for one in asked))
        for one, two, mask in zip(answers, together, kept, strict=True):
            assert_same_answer(one, expected(engines, prompt, mask))
            assert_same_answer(two, expected(engines, prompt, mask))
        if again:
            assert await engines.cached_tokens(asked[0]) > 0
    unlike = expected(engines, prompt, masks[0])[1], expected(engines, prompt, masks[1])[1]
    assert not torch.allclose(*(logprobs[:1] for logprobs in unlike), atol=2e-2)


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


async def test_exits_are_scored_as_the_reference_scores_them(engines, prompts):
    for prompt in prompts[:2]:
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
        prompts = [render(engines, *request) for request in REQUESTS]
        outcomes = await asyncio.gather(*(engines.walk(prompt) for prompt in prompts))
        answers = await asyncio.gather(*(engines.answer_large(one.prompt, 4) for one in outcomes))
        for prompt, outcome, answer in zip(prompts, outcomes, answers, strict=True):
            tokens = engines.reference.generate(*inputs(prompt), 8).tokens
            importance = engines.reference.importance(*inputs(prompt), tokens)
            assert_same_importance(outcome.report.importance, importance)
            assert_same_answer(answer, expected(engines, prompt, outcome.report.kept))
    finally:
        engines.shutdown()
