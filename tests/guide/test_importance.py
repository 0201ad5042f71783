"""Importance against transformers' eager attention on the same weights (arXiv 2412.03324, equation 2).

Two decoder families, grouped-query and multi-head attention, whole and chunked prefill, many requests
in one batch.
"""

import asyncio
from dataclasses import replace
from itertools import combinations
from typing import get_args

import pytest
import torch

from tests.support.compare import assert_same_importance
from tests.support.engines import Engines, inputs, user
from tests.support.images import random_image
from tools.tiny_internvl import SMALL_LLAMA, SMALL_QWEN2, build
from vllm_sgl.config import QueryRows

MODELS = {
    "qwen2-gqa": SMALL_QWEN2,
    "qwen2-mha": replace(SMALL_QWEN2, name="small-qwen2-mha", kv_heads=4),
    "llama-gqa": replace(SMALL_LLAMA, name="small-llama-gqa", kv_heads=1),
    "llama-mha": SMALL_LLAMA,
}
#: One step holds every prompt of the batch, or is shorter than any single one of them.
PREFILL = {
    "whole": {"enable_chunked_prefill": False, "max_num_batched_tokens": 2048},
    "chunked": {"enable_chunked_prefill": True, "max_num_batched_tokens": 24},
}
#: Image sizes and question. Visual tokens: 16; 112; 112 + 64; 16 + 48 + 80; 64.
REQUESTS = (
    ([(112, 112)], "What is written on the sign?"),
    ([(300, 200)], "Read the number on the back of the shirt."),
    ([(300, 200), (360, 120)], "Which of the two images has more red shapes?"),
    ([(112, 112), (120, 240), (500, 125)], "Count"),
    ([(360, 120)], "How many people are in the picture? " * 6),
)


@pytest.fixture(scope="module", params=MODELS)
def checkpoint(request, tmp_path_factory):
    return build(MODELS[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=PREFILL)
def engines(request, checkpoint):
    engines = Engines((checkpoint, checkpoint), with_large=False, small_args=PREFILL[request.param])
    yield engines
    engines.shutdown()


async def look_and_compare(engines, prompts, **kwargs):
    """All prompts at once; every answer and importance must be the reference's."""
    results = await asyncio.gather(*(engines.look(prompt, **kwargs) for prompt in prompts))
    for prompt, result in zip(prompts, results, strict=True):
        expected = engines.reference.generate(*inputs(prompt), kwargs.get("max_tokens", 8))
        assert list(result.answer.token_ids) == expected.tokens
        importance = engines.reference.importance(*inputs(prompt), result.answer.token_ids)
        assert_same_importance(result.importance, importance)
    assert len(engines.small.recorder) == 0
    return results


async def test_batch_of_unequal_requests_agrees(engines):
    prompts = [engines.render(question, *sizes, seed=7) for sizes, question in REQUESTS]
    budget = engines.small.scheduler.scheduler_config.max_num_batched_tokens
    lengths = [len(prompt["prompt_token_ids"]) for prompt in prompts]
    assert budget >= sum(lengths) or budget < min(lengths)
    results = await look_and_compare(engines, prompts, max_tokens=12)
    assert len({len(result.answer.token_ids) for result in results}) > 1  # they leave the batch in turn


async def test_image_in_an_early_turn_agrees(engines):
    first, second = random_image(1, 300, 200), random_image(2, 112, 112)
    early = [
        user("What is written on the sign?", first),
        {"role": "assistant", "content": "The sign says stop."},
        user("What time does the clock show?"),
        {"role": "assistant", "content": "Ten past two."},
        user("Is the door open or closed?"),
    ]
    two_turns = [
        user("What is the name of the shop?", first),
        {"role": "assistant", "content": "Cafe Nord."},
        user("Which of the two images shows a street?", second),
    ]
    prompts = [engines.render_chat(early), engines.render_chat(two_turns)]
    assert [len(prompt["mm_placeholders"]["image"]) for prompt in prompts] == [1, 2]
    await look_and_compare(engines, prompts, query_rows="prompt+generated")


async def test_a_follow_up_is_ranked_by_its_own_question(engines):
    """Of the last user turn on, whatever was asked before; the image is in the first one."""
    answer = {"role": "assistant", "content": "Ten past two."}
    first = user("What time does the clock show?", random_image(1, 300, 200))
    prompt = engines.render_chat([first, answer, user("Who?"), answer, user("Is the door open?")])
    ids, mark = prompt["prompt_token_ids"], engines.reference.tokenizer.encode("<|im_start|>user")
    (*_, begun) = (at + len(mark) for at in range(len(ids)) if ids[at : at + len(mark)] == mark)
    found = {}
    for choice in ("last_turn+generated", "last_turn", "prompt+generated"):
        result = await engines.look(prompt, query_rows=choice)
        tokens = result.answer.token_ids
        expected = engines.reference.importance(*inputs(prompt), tokens, choice, begun)
        assert_same_importance(result.importance, expected)
        found[choice] = result.importance[0]
    assert not torch.allclose(found["last_turn+generated"], found["prompt+generated"], rtol=0.05)


async def test_same_image_twice_at_once_is_scored_per_question(engines):
    questions = ("What is written on the sign?", "How many people are in the picture?")
    prompts = [engines.render(question, (300, 200)) for question in questions]
    assert prompts[0]["mm_hashes"] == prompts[1]["mm_hashes"]
    one, two = await look_and_compare(engines, prompts)
    assert not torch.allclose(one.importance[0], two.importance[0], rtol=0.05)


async def test_every_choice_of_query_rows_agrees(engines):
    """All of them in one batch; each is another importance."""
    prompt = engines.render("Which of the two images has more red shapes?", (300, 200), (360, 120))
    choices = [choice for choice in get_args(QueryRows) if "turn" not in choice]  # of one turn, as the prompt
    results = await asyncio.gather(*(engines.look(prompt, query_rows=choice) for choice in choices))
    for choice, result in zip(choices, results, strict=True):
        assert len(result.answer.token_ids) > 1
        expected = engines.reference.importance(*inputs(prompt), result.answer.token_ids, choice)
        assert_same_importance(result.importance, expected)
    for one, other in combinations(results, 2):
        assert not torch.allclose(one.importance[0], other.importance[0], rtol=0.05)


@pytest.mark.parametrize("choice", get_args(QueryRows))
async def test_answer_of_one_token_has_prompt_rows_only(engines, choice):
    prompt = engines.render("What is written on the sign?", (300, 200))
    result = await engines.look(prompt, max_tokens=1, query_rows=choice)
    assert len(result.answer.token_ids) == 1
    expected = engines.reference.importance(*inputs(prompt), [0], choice)
    assert_same_importance(result.importance, expected)


async def test_requests_that_arrive_while_others_run_agree(engines):
    prompts = [engines.render(question, *sizes, seed=20) for sizes, question in REQUESTS[:3]]

    async def late(prompt, steps):
        for _ in range(steps):
            await asyncio.sleep(0)
        return await engines.look(prompt)

    waits = (0, 5, 11)
    results = await asyncio.gather(*map(late, prompts, waits))
    for prompt, result in zip(prompts, results, strict=True):
        importance = engines.reference.importance(*inputs(prompt), result.answer.token_ids)
        assert_same_importance(result.importance, importance)
