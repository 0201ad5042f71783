"""Crossed pairs against transformers: importance on the small model's own prompt, carried to where the large
model's visual tokens lie; the large model's answers on what is kept of those; exits and their scores."""

import asyncio
import itertools

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.renderers import ChatParams

from tests.matrix.checks import check_conversation
from tests.support import odd_conversations
from tests.support.compare import (
    assert_known_images_are_looked_at_alike,
    assert_same_answer,
    assert_same_importance,
)
from tests.support.engines import Engines, inputs, user
from tests.support.images import random_image
from tests.translated.pairs import CONVERSATIONS
from vllm_sgl.core import GuideRequest
from vllm_sgl.families import family_of
from vllm_sgl.visual.items import visual_counts
from vllm_sgl.visual.transfer import Transfer

from .pairs import PAIRS

#: Width and height of the images of each conversation.
SIZES = [[(300, 200)], [(112, 112), (360, 120)], [(120, 240)]]
_CHAT = {"chat_template_kwargs": {"add_generation_prompt": True, "tokenize": False}}
_IDS = itertools.count()


@pytest.fixture(scope="module", params=PAIRS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def engines(kind, tmp_path_factory):
    crossed = PAIRS[kind]
    pair = crossed.build(tmp_path_factory.mktemp("crossed"))
    # The reference counts all rows since the image, of an earlier turn too.
    engines = Engines(pair, sgl={"query_rows": "prompt+generated"}, small_args=dict(crossed.small_args))
    yield engines
    engines.shutdown()


@pytest.fixture(scope="module")
def prompts(engines):
    return [engines.render_chat(messages) for messages in CONVERSATIONS]


def asked(engines, prompt):
    items, params = engines.reader.items(prompt), SamplingParams()
    return GuideRequest(f"crossed-{next(_IDS)}", prompt, items, params, 8, "prompt+generated")


async def small_prompt(engines, prompt):
    """What the small model is given for this prompt of the large one."""
    return (await engines.guide._guide.translate(asked(engines, prompt))).prompt


def layouts(engines, size):
    """Of the small and of the large model."""
    models = (engines.small.model_config, engines.large.model_config)
    return [family_of(model).layout_of(model)(*size) for model in models]


def carried(engines, sizes, importance):
    """By boxes alone, token by token: as a density that is averaged over each of the large model's boxes.
    Where only the large model has a thumbnail, that comes last."""
    found = []
    for size, values in zip(sizes, importance, strict=True):
        own, theirs = layouts(engines, size)
        alike = len(own.views) == len(theirs.views)
        out = np.zeros(theirs.visual_tokens)
        for number, view in enumerate(theirs.views):
            senders = [own.views[number]] if alike else own.views
            unit = nominal(senders[0])
            for token, box in zip(view.tokens.flatten(), view.boxes().reshape(-1, 4), strict=True):
                out[token] = unit / nominal(view) * sum(mass(sender, values, box) for sender in senders)
        finest = out[theirs.views[0].tokens]
        for view in theirs.views[1:] if not alike else ():
            out[view.tokens] *= finest[finest > 0].min() / out[view.tokens].max() / 2
        for view in theirs.views:
            for row in view.tokens:
                if row[-1] + 1 < len(out) and not any(row[-1] + 1 in other.tokens for other in theirs.views):
                    out[row[-1] + 1] = out[row].max()
        found.append(torch.from_numpy(out).float())
    return found


def nominal(view):
    """A token's size, in shares of the image."""
    rows, columns = view.tokens.shape
    down, across = (
        1 / count if spans is None else (spans[:, 1] - spans[:, 0]).mean()
        for count, spans in ((rows, view.down), (columns, view.across))
    )
    return down * across


def mass(view, values, box):
    left, top, right, bottom = view.boxes().reshape(-1, 4).T
    across = np.minimum(right, box[2]) - np.maximum(left, box[0])
    down = np.minimum(bottom, box[3]) - np.maximum(top, box[1])
    share = across.clip(0) * down.clip(0) / ((right - left) * (bottom - top)).clip(1e-12)
    return float((values.double().numpy()[view.tokens.flatten()] * share).sum())


async def test_turns_of_a_conversation_agree(engines):
    """What is remembered is in the large model's tokens, wherever importance comes from."""
    # LLaVA's template writes answers otherwise than it asks for them: a prompt fills a block up to its image.
    first = [
        {"role": "system", "content": "You answer questions about signs. " * 15},
        user("What is written on the sign?", random_image(31, 300, 200)),
    ]
    answer = {"role": "assistant", "content": "Nothing."}
    prompts = [engines.render_chat(turns) for turns in (first, [*first, answer, user("Who is it?")])]
    outcomes = await check_conversation(engines, prompts, "late", 0.09)
    assert [outcome.report.reason for outcome in outcomes] == [None, "follow_up"]


async def test_a_known_image_is_looked_at_as_a_new_one(engines):
    images = random_image(9, 300, 200), random_image(10, 360, 120)
    prompts = [engines.render_chat([user(question, *images)]) for question in ("Who?", "What time is it?")]
    await assert_known_images_are_looked_at_alike(engines, *prompts)


def test_how_the_pair_is_guided(engines, kind):
    assert engines.verdict.way == "crossed"
    assert "image tiling" in engines.verdict.differences
    assert engines.verdict.same_tokens == kind.startswith("fewer")


def test_layouts_are_those_of_the_prompts(engines, prompts):
    """And not the same ones: else nothing here would be tried."""
    differ = False
    for prompt, sizes in zip(prompts, SIZES, strict=True):
        counts = [
            tuple(layout.visual_tokens for layout in of)
            for of in zip(*(layouts(engines, size) for size in sizes), strict=True)
        ]
        own = asyncio.run(small_prompt(engines, prompt))
        assert (visual_counts(own), visual_counts(prompt)) == tuple(counts)
        assert engines.guide.sees(asked(engines, prompt)) == sum(counts[0])
        differ = differ or counts[0] != counts[1]
    assert differ


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
async def test_the_small_models_prompt_is_the_one_that_vllm_renders_for_it(engines, prompts, number):
    """Ids, places and pixels, with its own settings; media keep the large prompt's names."""
    renderer = engines.small.engine.renderer
    tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    _, (alone,) = renderer.render_chat([CONVERSATIONS[number]], ChatParams(**_CHAT), tokens)
    found = await small_prompt(engines, prompts[number])
    assert found["prompt_token_ids"] == alone["prompt_token_ids"]
    assert found["mm_hashes"] == prompts[number]["mm_hashes"]
    places = zip(found["mm_placeholders"]["image"], alone["mm_placeholders"]["image"], strict=True)
    for one, other in places:
        assert (one.offset, one.length) == (other.offset, other.length)
    for one, other in zip(found["mm_kwargs"]["image"], alone["mm_kwargs"]["image"], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name].data, other[name].data), name


async def test_importance_is_the_references_carried_by_boxes(engines, prompts):
    results = await asyncio.gather(*(engines.look(prompt) for prompt in prompts))
    for prompt, sizes, result in zip(prompts, SIZES, results, strict=True):
        own = inputs(await small_prompt(engines, prompt))
        expected = engines.reference.generate(*own, 8)
        assert list(result.own.own.answer.token_ids) == expected.tokens
        importance = engines.reference.importance(*own, expected.tokens)
        assert_same_importance(result.own.importance, importance)
        assert_same_importance(result.importance, carried(engines, sizes, importance))


@pytest.mark.parametrize("retention", [0.35, 0.09])
async def test_the_large_model_answers_on_what_is_kept(engines, prompts, retention):
    outcomes = await asyncio.gather(*(engines.walk(prompt, sgl_retention=retention) for prompt in prompts))
    for prompt, outcome in zip(prompts, outcomes, strict=True):
        assert (outcome.report.decision, outcome.report.reason) == ("prune", None)
        assert outcome.report.visual_tokens == sum(visual_counts(prompt))
        answer = await engines.answer_large(outcome.prompt, 4)
        expected = engines.large_reference.generate(*inputs(prompt), 4, keep=outcome.report.kept)
        assert_same_answer(answer, expected)


async def test_exits_are_scored_on_the_small_models_own_tokens(engines, prompts):
    exits = 0
    for prompt in prompts:
        outcome = await engines.walk(prompt, max_tokens=24, sgl_exit_threshold=0.0)
        if outcome.report.decision != "exit":
            assert outcome.report.reason == "unfinished"
            continue
        exits += 1
        own = inputs(await small_prompt(engines, prompt))
        generated = engines.reference.generate(*own, 24)
        text = engines.reference.tokenizer.decode(generated.tokens, skip_special_tokens=True)
        assert text.startswith(outcome.answer.text)
        consistency = engines.reference.consistency(*own, generated.tokens)
        assert outcome.report.consistency == pytest.approx(consistency, rel=1e-2)
    assert exits


async def test_ranking_of_views(engines, prompts):
    """The server's setting is what carries importance."""
    for views in ("separate", "finest"):
        engines.guide._views = views
        try:
            result = await engines.look(prompts[0])
        finally:
            engines.guide._views = "auto"
        transfer = Transfer(*layouts(engines, SIZES[0][0]))
        expected = transfer.importance(result.own.importance[0], views)
        torch.testing.assert_close(result.importance[0], expected)


#: Of the large model's processor; LLaVA-OneVision's takes none in vLLM.
SETTINGS = {
    "internvl": {"max_dynamic_patch": 1},
    "internvl_hf": {"max_patches": 1},
    "qwen2_vl": {"max_pixels": 9 * 28**2},
    "qwen2_5_vl": {"size": {"shortest_edge": 4 * 28**2, "longest_edge": 9 * 28**2}},
}


async def test_a_request_that_has_images_cut_otherwise(engines, kind):
    """Boxes are those of its own settings: of the small model's images too, where both are of one kind."""
    settings = SETTINGS.get(PAIRS[kind].large)
    if settings is None:
        return
    renderer = engines.renderer
    tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    size, chat = (400, 300), ChatParams(**_CHAT)
    messages = [user("Who?", random_image(5, *size))]
    # As a server hands a request's settings on.
    extras = {"mm_processor_kwargs": settings}
    _, (prompt,) = renderer.render_chat([messages], chat, tokens, prompt_extras=extras)
    _, (usual,) = renderer.render_chat([messages], chat, tokens)
    assert visual_counts(prompt) < visual_counts(usual)
    result = await engines.look(prompt)
    own, model = await small_prompt(engines, prompt), engines.small.model_config
    shared = settings if kind.startswith("fewer") else {}
    assert visual_counts(own) == (family_of(model).layout_of(model, shared)(*size).visual_tokens,)
    assert_same_importance(
        result.own.importance,
        engines.reference.importance(*inputs(own), result.own.own.answer.token_ids),
    )
    assert [len(values) for values in result.importance] == list(visual_counts(prompt))
    outcome = await engines.walk(prompt)
    assert outcome.report.decision == "prune"
    expected = engines.large_reference.generate(*inputs(prompt), 4, keep=outcome.report.kept)
    assert_same_answer(await engines.answer_large(outcome.prompt, 4), expected)


@pytest.mark.parametrize("name", odd_conversations.CONVERSATIONS)
async def test_odd_conversations(engines, kind, name):
    outcome = await odd_conversations.check_odd_conversation(engines, name)
    if "line" in name and outcome is not None and kind == "qwen2_5_vl to internvl":
        assert (outcome.report.decision, outcome.report.reason) == ("bypass", "guide_refused")
