"""Translated pairs against transformers: importance on the small model's own prompt, the large model's
answers on what is kept of its own, and exits in the large model's tokens."""

import asyncio
import itertools

import pytest
import torch
from vllm import SamplingParams
from vllm.renderers import ChatParams
from vllm.renderers.inputs.preprocess import parse_model_prompt

from tests.matrix.checks import check_conversation
from tests.support import odd_conversations
from tests.support.compare import (
    assert_known_images_are_looked_at_alike,
    assert_same_answer,
    assert_same_importance,
)
from tests.support.engines import Engines, inputs, user
from tests.support.images import random_image
from vllm_sgl.core import GuideRequest

from .pairs import BUILDERS, CONVERSATIONS

_CHAT = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})
_IDS = itertools.count()


@pytest.fixture(scope="module", params=BUILDERS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def engines(kind, tmp_path_factory):
    # The reference counts all rows since the image, of an earlier turn too.
    engines = Engines(BUILDERS[kind](tmp_path_factory.mktemp(kind)), sgl={"query_rows": "prompt+generated"})
    yield engines
    engines.shutdown()


@pytest.fixture(scope="module")
def prompts(engines):
    return [engines.render_chat(messages) for messages in CONVERSATIONS]


async def small_prompt(engines, prompt):
    """What the guide gives the small model for this prompt of the large one."""
    items, params = engines.reader.items(prompt), SamplingParams()
    asked = GuideRequest(f"translated-{next(_IDS)}", prompt, items, params, 8, "prompt+generated")
    return (await engines.guide.translate(asked)).prompt


def test_how_the_pair_is_guided(engines, kind):
    # Of the two formats' tokenizers one has a token more.
    differs = ["tokenizer", "chat template" if kind == "tokenizer" else "prompt format"]
    assert (engines.verdict.way, list(engines.verdict.differences)) == ("translated", differs)


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
async def test_the_small_models_prompt_is_the_one_that_vllm_renders_for_it(engines, prompts, number):
    """Ids, places and pixels, wherever the pixels come from; media keep the large prompt's names."""
    renderer = engines.small.engine.renderer
    tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    _, (alone,) = renderer.render_chat([CONVERSATIONS[number]], _CHAT, tokens)
    found = await small_prompt(engines, prompts[number])
    assert found["prompt_token_ids"] == alone["prompt_token_ids"]
    assert found["mm_hashes"] == prompts[number]["mm_hashes"]
    places = zip(found["mm_placeholders"]["image"], alone["mm_placeholders"]["image"], strict=True)
    for one, other in places:
        assert (one.offset, one.length) == (other.offset, other.length)
        assert one.is_embed.tolist() == other.is_embed.tolist()
    for one, other in zip(found["mm_kwargs"]["image"], alone["mm_kwargs"]["image"], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name].data, other[name].data), name


async def test_pixels_are_made_once_where_both_models_take_the_same(engines, prompts, kind):
    found = await small_prompt(engines, prompts[0])
    (small,), (large,) = found["mm_kwargs"]["image"], prompts[0]["mm_kwargs"]["image"]
    if kind == "tokenizer":
        assert found["prompt_token_ids"] != prompts[0]["prompt_token_ids"]
        assert small["pixel_values_flat"].data is large["pixel_values_flat"].data
        assert small["image_token_id"].data != large["image_token_id"].data
    else:
        (ours,), (theirs,) = inputs(prompts[0])[1], inputs(found)[1]
        assert ours.shape == theirs.shape
        assert not torch.equal(ours, theirs)


async def test_importance_is_the_references_on_the_small_models_prompt(engines, prompts):
    results = await asyncio.gather(*(engines.look(prompt) for prompt in prompts))
    for prompt, result in zip(prompts, results, strict=True):
        own = inputs(await small_prompt(engines, prompt))
        expected = engines.reference.generate(*own, 8)
        assert list(result.own.answer.token_ids) == expected.tokens
        assert_same_importance(result.importance, engines.reference.importance(*own, expected.tokens))


@pytest.mark.parametrize("retention", [0.35, 0.09])
async def test_the_large_model_answers_on_what_is_kept(engines, prompts, retention):
    outcomes = await asyncio.gather(*(engines.walk(prompt, sgl_retention=retention) for prompt in prompts))
    for prompt, outcome in zip(prompts, outcomes, strict=True):
        assert (outcome.report.decision, outcome.report.reason) == ("prune", None)
        answer = await engines.answer_large(outcome.prompt, 4)
        expected = engines.large_reference.generate(*inputs(prompt), 4, keep=outcome.report.kept)
        assert_same_answer(answer, expected)
        whole = engines.large_reference.generate(*inputs(prompt), 4)
        assert not torch.allclose(whole.logprobs[:1], expected.logprobs[:1], atol=2e-2)


async def test_an_exit_is_the_small_models_text_in_the_large_models_tokens(engines, prompts):
    tokenizer, exits = engines.renderer.get_tokenizer(), 0
    for prompt in prompts:
        outcome = await engines.walk(prompt, max_tokens=24, sgl_exit_threshold=0.0)
        own = inputs(await small_prompt(engines, prompt))
        generated = engines.reference.generate(*own, 24)
        text = engines.reference.tokenizer.decode(generated.tokens, skip_special_tokens=True)
        ids = tokenizer.encode(text, add_special_tokens=False)
        if outcome.report.decision == "prune":  # cut in its own tokens, or nothing but special ones
            assert outcome.report.reason == "unfinished"
            assert not text or generated.tokens[-1] != engines.reference.eos_token_id
            continue
        exits += 1
        ended = generated.tokens[-1] == engines.reference.eos_token_id
        reason, ids = "stop" if ended else "length", ids + [tokenizer.eos_token_id] * ended
        if len(ids) > 24:  # the limit counts the large model's tokens
            reason, ids = "length", ids[:24]
            text = tokenizer.decode(ids, skip_special_tokens=True)
        assert (outcome.answer.text, outcome.answer.finish_reason) == (text, reason)
        assert list(outcome.answer.token_ids) == ids
        consistency = engines.reference.consistency(*own, generated.tokens)
        assert outcome.report.consistency == pytest.approx(consistency, rel=1e-2)
    assert exits


async def test_an_image_is_encoded_once_for_many_questions(engines):
    """Its name is the large prompt's; the small renderer alone would make up a new one every time."""
    image, cache = random_image(8, 300, 200), engines.small.runner.model._features
    before = cache.misses
    await engines.look(engines.render_chat([user("Who?", image)]))
    once = cache.misses
    await engines.look(engines.render_chat([user("What time is it?", image)]))
    assert before < once == cache.misses


async def test_turns_of_a_conversation_agree(engines):
    """What is remembered is in the large model's tokens, wherever importance comes from."""
    first = user("What is written on the sign? " * 18, random_image(31, 300, 200))
    answer = {"role": "assistant", "content": "Nothing."}
    prompts = [engines.render_chat(turns) for turns in ([first], [first, answer, user("Who is it?")])]
    outcomes = await check_conversation(engines, prompts, "late", 0.09)
    assert [outcome.report.reason for outcome in outcomes] == [None, "follow_up"]


async def test_a_known_image_is_looked_at_as_a_new_one(engines):
    images = random_image(9, 300, 200), random_image(10, 360, 120)
    prompts = [engines.render_chat([user(question, *images)]) for question in ("Who?", "What time is it?")]
    await assert_known_images_are_looked_at_alike(engines, *prompts)


async def test_a_prompt_without_a_conversation_is_left_alone(engines):
    image = random_image(0, 112, 112)
    prompt = {"prompt": engines.chat_text([user("What?", image)]), "multi_modal_data": {"image": [image]}}
    (rendered,) = engines.renderer.render_cmpl([parse_model_prompt(engines.large.model_config, prompt)])
    outcome = await engines.walk(rendered)
    assert (outcome.report.decision, outcome.report.reason) == ("bypass", "no_conversation")
    assert outcome.report.guide_seconds is None


async def test_ids_of_the_large_model_never_reach_the_small_one(engines, prompts):
    """Whatever they are: here every id but one that ends the answer, and one beyond any vocabulary."""
    plain = await engines.look(prompts[0])
    strict = await engines.look(
        prompts[0], stop_token_ids=list(range(300)), allowed_token_ids=[3], logit_bias={100_000: 5.0},
        min_tokens=6,
    )  # fmt: skip
    assert strict.own.answer.token_ids == plain.own.answer.token_ids


@pytest.mark.parametrize("name", odd_conversations.CONVERSATIONS)
async def test_odd_conversations(engines, kind, name):
    outcome = await odd_conversations.check_odd_conversation(engines, name)
    if name == "two turns of one" and kind == "tokenizer":  # its template wants them in turn
        assert (outcome.report.decision, outcome.report.reason) == ("bypass", "guide_refused")
