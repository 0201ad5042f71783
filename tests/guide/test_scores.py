"""Confidence, consistency and S against the same formulas computed with transformers."""

import asyncio

import pytest
from vllm import SamplingParams

from tests.support.engines import Engines, inputs
from tools.reference import confidence
from vllm_sgl.core import Reason

REQUESTS = (
    ([(112, 112)], "What is written on the sign?"),
    ([(300, 200)], "Who?"),
    ([(300, 200), (112, 112)], "Which of the two images has more red shapes?"),
)


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def pair(request):
    return request.getfixturevalue(f"{request.param}_pair")


@pytest.fixture(scope="module", params=["original", "packed"])
def engines(request, pair):
    sgl = {"positions": request.param, "consistency_retention": 0.05}
    # Less than the large model's context, so that there are prompts that only one of them can take.
    engines = Engines(pair, with_large=False, sgl=sgl, small_args={"max_model_len": 320})
    yield engines
    engines.shutdown()


@pytest.fixture
def prompts(engines):
    return [engines.render(question, *sizes, seed=11) for sizes, question in REQUESTS]


async def test_scores_follow_the_formulas(engines, prompts):
    # A threshold of 0 lets every finished answer exit, after its consistency pass.
    walks = (engines.walk(p, max_tokens=6, sgl_exit_threshold=0.0) for p in prompts)
    for prompt, outcome in zip(prompts, await asyncio.gather(*walks), strict=True):
        expected = engines.reference.generate(*inputs(prompt), 6)
        confident = confidence(expected.logprobs)
        consistent = engines.reference.consistency(
            *inputs(prompt), expected.tokens, 0.05, engines.config.positions
        )
        report = outcome.report
        assert report.confidence == pytest.approx(confident, rel=1e-3)
        assert report.consistency == pytest.approx(consistent, rel=1e-2)
        assert report.score == pytest.approx((confident + consistent) / 2, rel=1e-3)
        assert outcome.report.decision == "exit"
        answer = outcome.answer
        assert list(answer.token_ids) == expected.tokens
        assert answer.text == engines.reference.tokenizer.decode(expected.tokens, skip_special_tokens=True)
        assert (report.decision, report.kept_tokens) == ("exit", 0)


async def test_a_score_without_a_second_pass(engines, prompts):
    outcome = await engines.walk(prompts[0], max_tokens=6, sgl_exit_threshold=0.0, sgl_exit_score="product")
    expected = engines.reference.generate(*inputs(prompts[0]), 6)
    assert outcome.report.score == pytest.approx(expected.logprobs.sum().exp().item(), rel=1e-3)
    assert (outcome.report.decision, outcome.report.consistency) == ("exit", None)


@pytest.mark.parametrize("choice", ["last_prompt", "generated"])
async def test_consistency_pass_shows_what_the_chosen_rows_rank_first(engines, prompts, choice):
    prompt = prompts[1]
    outcome = await engines.walk(prompt, max_tokens=6, sgl_exit_threshold=0.0, sgl_query_rows=choice)
    tokens = engines.reference.generate(*inputs(prompt), 6).tokens
    of_choice, of_paper = (
        engines.reference.consistency(*inputs(prompt), tokens, 0.05, engines.config.positions, rows)
        for rows in (choice, "prompt+generated")
    )
    assert outcome.report.consistency == pytest.approx(of_choice, rel=1e-2)
    assert outcome.report.consistency != pytest.approx(of_paper, rel=2e-2)


async def test_consistency_shows_few_tokens_only(engines, prompts):
    """With every token shown it would be the answer's own probability; it must not be."""
    outcome = await engines.walk(prompts[1], max_tokens=6, sgl_exit_threshold=0.0)
    expected = engines.reference.generate(*inputs(prompts[1]), 6)
    assert outcome.report.consistency != pytest.approx(expected.logprobs.sum().exp().item(), rel=0.05)


async def test_threshold_divides_exit_from_prune(engines, prompts):
    prompt = prompts[0]
    score = (await engines.walk(prompt, max_tokens=6, sgl_exit_threshold=0.0)).report.score
    below = await engines.walk(prompt, max_tokens=6, sgl_exit_threshold=score * 0.999)
    above = await engines.walk(prompt, max_tokens=6, sgl_exit_threshold=min(1, score * 1.001))
    assert below.report.decision == "exit"
    assert above.report.decision == "prune"
    assert above.report.reason == Reason.LOW_SCORE
    assert above.report.score == pytest.approx(score, rel=1e-4)


async def test_unfinished_answer_never_exits(engines, prompts):
    outcome = await engines.walk(prompts[0], max_tokens=64, sgl_exit_threshold=0.0, sgl_guide_tokens=1)
    assert outcome.report.decision == "prune"
    assert outcome.report.reason == Reason.UNFINISHED
    assert outcome.report.consistency is None


async def test_prompt_without_room_for_the_small_model_is_bypassed(engines):
    prompt = engines.render("Count. " * 100, (112, 112))
    assert len(prompt["prompt_token_ids"]) > engines.guide.context
    outcome = await engines.walk(prompt)
    assert outcome.report.reason == Reason.TOO_LONG


async def test_prompt_with_room_for_one_answer_token_is_guided(engines):
    """One token of answer, and one that the consistency pass must generate: exactly the context."""
    image = engines.render("", (112, 112))
    missing = engines.guide.context - 2 - len(image["prompt_token_ids"])
    token = image["prompt_token_ids"][-1]
    prompt = {**image, "prompt_token_ids": [*image["prompt_token_ids"], *[token] * missing]}
    outcome = await engines.walk(prompt, max_tokens=1, sgl_exit_threshold=0.0)
    assert outcome.report.decision == "exit"
    assert len(outcome.answer.token_ids) == 1
    one_more = {**prompt, "prompt_token_ids": [*prompt["prompt_token_ids"], token]}
    assert (await engines.walk(one_more)).report.reason == Reason.TOO_LONG


@pytest.mark.parametrize("included", [False, True], ids=["cut off", "included"])
async def test_stop_string_ends_the_answer_where_vllm_would(engines, prompts, included):
    shown = {"ignore_eos": True, "skip_special_tokens": False}
    plain = await engines.look(prompts[0], max_tokens=10, **shown)
    stop = plain.answer.text[2:4]
    client = {**shown, "stop": [stop], "include_stop_str_in_output": included}
    params = SamplingParams(temperature=0, max_tokens=10, **client)
    (vllms,) = (await engines.run_small(prompts[0], params)).outputs
    assert (vllms.finish_reason, vllms.stop_reason) == ("stop", stop)
    answer = (await engines.look(prompts[0], max_tokens=10, **client)).answer
    assert answer.text == vllms.text
    assert list(answer.token_ids) == list(vllms.token_ids)
    assert answer.logprobs == pytest.approx(plain.answer.logprobs[: len(answer.token_ids)], abs=1e-4)
    assert (answer.finish_reason, answer.stop_reason, answer.finished) == ("stop", stop, True)
