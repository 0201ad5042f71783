"""The large model's answers on kept tokens, against transformers on the same tokens and position ids."""

import asyncio

import pytest
import torch

from tests.support.compare import assert_same_answer
from tests.support.engines import Engines, inputs, user
from tests.support.images import random_image
from tools.reference import select
from vllm_sgl.prune.rewrite import prune_prompt, tag_items
from vllm_sgl.visual.items import visual_counts

FAMILIES = ("qwen2", "llama")
POSITIONS = ("original", "packed")


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request):
    return request.getfixturevalue(f"{request.param}_pair")


@pytest.fixture(scope="module", params=POSITIONS)
def engines(request, pair):
    # vLLM's own default: prefix caching is on.
    engines = Engines(pair, sgl={"positions": request.param}, enable_prefix_caching=True)
    yield engines
    engines.shutdown()


def expected(engines, prompt, kept, max_tokens=8):
    return engines.large_reference.generate(
        *inputs(prompt), max_tokens, keep=kept, positions=engines.config.positions
    )


def random_masks(prompt, seed, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(count, generator=generator) for count in visual_counts(prompt)]
    return select(scores, share)


async def test_guided_answers_agree(engines):
    """The whole walk: the mask is the one that the reference of the small model picks."""
    prompts = [
        engines.render("What is written on the sign?", (300, 200)),
        engines.render("Which of the two images has more red shapes?", (112, 112), (360, 120)),
        engines.render("Who?", (112, 112)),
    ]
    retentions = (0.35, 0.35, 0.09)
    walks = (
        engines.walk(prompt, sgl_retention=retention)
        for prompt, retention in zip(prompts, retentions, strict=True)
    )
    outcomes = await asyncio.gather(*walks)
    answers = await asyncio.gather(*(engines.answer_large(outcome.prompt) for outcome in outcomes))
    for prompt, retention, outcome, answer in zip(prompts, retentions, outcomes, answers, strict=True):
        tokens = engines.reference.generate(*inputs(prompt), 8).tokens
        kept = select(engines.reference.importance(*inputs(prompt), tokens), retention)
        assert [x.tolist() for x in outcome.report.kept] == [x.tolist() for x in kept]
        assert len(outcome.prompt["prompt_token_ids"]) == len(prompt["prompt_token_ids"]) - (
            outcome.report.visual_tokens - outcome.report.kept_tokens
        )
        assert_same_answer(answer, expected(engines, prompt, kept))


async def test_long_decode_after_pruning_agrees(engines):
    prompt = engines.render("Describe the image in detail.", (300, 200), seed=5)
    kept = random_masks(prompt, seed=1, share=0.1)
    answer = await engines.answer_large(prune_prompt(prompt, kept), max_tokens=24)
    assert_same_answer(answer, expected(engines, prompt, kept, 24))


@pytest.mark.parametrize("empty", [0, 1], ids=["first image", "second image"])
async def test_image_that_keeps_nothing(engines, empty):
    prompt = engines.render("Which of the two images shows a street?", (300, 200), (112, 112))
    kept = [torch.tensor([3, 4, 9]), torch.tensor([0, 15])]
    kept[empty] = torch.zeros(0, dtype=torch.int64)
    answer = await engines.answer_large(prune_prompt(prompt, kept))
    assert_same_answer(answer, expected(engines, prompt, kept))


async def test_image_that_keeps_everything_beside_a_pruned_one(engines):
    prompt = engines.render("Count", (112, 112), (300, 200))
    kept = [torch.arange(16), torch.tensor([111])]
    answer = await engines.answer_large(prune_prompt(prompt, kept))
    assert_same_answer(answer, expected(engines, prompt, kept))


async def test_tagged_but_unpruned_prompt_agrees_with_the_plain_one(engines):
    prompt = engines.render("Read the number.", (300, 200), seed=8)
    everything = [torch.arange(count) for count in visual_counts(prompt)]
    for variant in (prompt, tag_items(prompt), prune_prompt(prompt, everything)):
        assert_same_answer(await engines.answer_large(variant), expected(engines, prompt, None))


async def test_images_in_different_turns_agree(engines):
    messages = [
        user("What is the name of the shop?", random_image(1, 360, 120)),
        {"role": "assistant", "content": "Cafe Nord."},
        user("Which of the two images shows a street?", random_image(2, 112, 112)),
    ]
    prompt = engines.render_chat(messages)
    kept = random_masks(prompt, seed=2)
    answer = await engines.answer_large(prune_prompt(prompt, kept))
    assert_same_answer(answer, expected(engines, prompt, kept))


async def test_two_masks_of_one_image_never_share_a_cache(engines):
    """One after the other, at the same time, and the first mask again, all with the prefix cache on."""
    prompt = engines.render("How many people are in the picture?", (300, 200), seed=9)
    masks = [random_masks(prompt, seed=seed) for seed in (3, 4)]
    # Equally many kept tokens, so that nothing but the hash tells the two prompts apart.
    pruned = [prune_prompt(prompt, kept) for kept in masks]
    assert pruned[0]["prompt_token_ids"] == pruned[1]["prompt_token_ids"]
    right = [expected(engines, prompt, kept) for kept in masks]
    assert abs(right[0].logprobs[0] - right[1].logprobs[0]) > 0.03  # a mix-up would be seen
    for which in (0, 1, 0):
        assert_same_answer(await engines.answer_large(pruned[which]), right[which])
    order = (1, 0, 0, 1)
    answers = await asyncio.gather(*(engines.answer_large(pruned[which]) for which in order))
    for which, answer in zip(order, answers, strict=True):
        assert_same_answer(answer, right[which])
    assert_same_answer(await engines.answer_large(prompt), expected(engines, prompt, None))


async def test_same_mask_reuses_the_prefix_cache(engines):
    prompt = engines.render("What is written on the sign? " * 12, (300, 200), seed=10)
    kept = random_masks(prompt, seed=5)
    cached = []
    for _ in range(2):
        cached.append(await engines.cached_tokens(prune_prompt(prompt, kept)))
    assert cached[0] == 0
    assert cached[1] >= 32
    other = random_masks(prompt, seed=6)
    assert await engines.cached_tokens(prune_prompt(prompt, other)) == 0


async def test_chunked_prefill_of_a_pruned_prompt_agrees(pair):
    """Positions and features are cut into chunks together, for requests that share steps."""
    engines = Engines(pair, enable_prefix_caching=False, max_num_batched_tokens=24)
    prompts = [engines.render("Read the number. " * 3, (300, 200), (112, 112), seed=i) for i in range(3)]
    masks = [random_masks(prompt, seed=i) for i, prompt in enumerate(prompts)]
    pruned = [prune_prompt(prompt, kept) for prompt, kept in zip(prompts, masks, strict=True)]
    answers = await asyncio.gather(*map(engines.answer_large, pruned))
    for prompt, kept, answer in zip(prompts, masks, answers, strict=True):
        assert_same_answer(answer, expected(engines, prompt, kept))
    engines.shutdown()
