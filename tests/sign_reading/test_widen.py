"""Widened models answer as the trained ones, and cost what they were asked to."""

import json

import pytest
import torch

from benchmarks.accuracy.cost import ModelCost
from tests.support.engines import Engines, inputs, user
from tests.support.rendering import chat_prompt, render
from tools.reference import reference
from tools.reference.chat_internvl import ChatInternVL
from tools.sign_reading import widen
from tools.sign_reading.scene import paint
from tools.sign_reading.shapes import SHAPES
from tools.sign_reading.split import example
from tools.sign_reading.widen import LARGE, SMALL

GFLOP = 2.5
SHAPE = "26B+2B"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(large, small), widened as little as leaves every part wider or deeper."""
    folder = tmp_path_factory.mktemp("widened")
    large = widen.widen_large(folder / "large", SHAPE, GFLOP)
    return large, widen.widen_small(folder / "small", SHAPE, GFLOP)


@pytest.fixture(scope="module")
def questions():
    """Images and text of the first questions of the test split."""
    examples = [example("test", number) for number in range(3)]
    return [([paint(scene) for scene in one.scenes], one.question.text) for one in examples]


def config(path):
    return json.loads((path / "config.json").read_text())


@pytest.mark.parametrize("which", [0, 1], ids=["large", "small"])
def test_logits_and_importance_are_the_trained_models(pair, questions, which):
    trained, widened = reference((LARGE, SMALL)[which]), ChatInternVL(pair[which])
    for images, text in questions:
        rendered = render(pair[which], chat_prompt(text, len(images)), images)
        logits = []
        for model in (trained, widened):
            prompt = model._prompt(*rendered, None, "original")
            with torch.inference_mode():
                logits.append(model._forward(prompt, [])[0])
        spread = logits[0].std()
        torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-4 * spread.item())
        answer = trained.generate(*rendered, 6)
        assert widened.generate(*rendered, 6).tokens == answer.tokens
        if which == 1:  # layers that are added to the large model receive attention of their own
            expected = trained.importance(*rendered, answer.tokens)
            for found, part in zip(widened.importance(*rendered, answer.tokens), expected, strict=True):
                torch.testing.assert_close(found, part, rtol=1e-4, atol=1e-6)


def test_every_part_grew(pair):
    for path, trained in zip(pair, (LARGE, SMALL), strict=True):
        for part in (widen.VISION, widen.DECODER):
            before, after = part.units(config(trained)), part.units(config(path))
            assert after > before
            assert after <= widen._WIDEST * part.width(config(path)) or path == pair[1]
    assert widen.DECODER.layers(config(pair[1])) == widen.DECODER.layers(config(SMALL))


def test_layers_are_added_where_units_would_be_too_many(tmp_path, questions):
    """And change no logit either, nor does an odd number of them."""
    layers = [part.layers(config(LARGE)) for part in (widen.VISION, widen.DECODER)]
    flops = [
        (count + 1.5) * part.layer(config(LARGE), widen._WIDEST * part.width(config(LARGE)))
        for count, part in zip(layers, (widen.VISION, widen.DECODER), strict=True)
    ]
    path = widen.widen(LARGE, tmp_path / "deep", *flops, more_layers=True)
    found = [part.layers(config(path)) for part in (widen.VISION, widen.DECODER)]
    assert found == [count + 2 for count in layers]
    images, text = questions[0]
    rendered = render(path, chat_prompt(text, len(images)), images)
    both = [model.generate(*rendered, 6) for model in (reference(LARGE), ChatInternVL(path))]
    assert both[0].tokens == both[1].tokens
    torch.testing.assert_close(both[1].logprobs, both[0].logprobs, rtol=1e-4, atol=1e-4)


def test_costs_are_as_asked(pair):
    """By another count of the same products, to what a step of 64 units leaves."""
    large, small = (ModelCost.of(config(path)) for path in pair)
    shape = SHAPES[SHAPE]
    scale = 1e9 * GFLOP / (shape.vision + shape.decoder)
    for model, vision, decoder in (
        (large, shape.vision, shape.decoder),
        (small, shape.guide_vision, shape.guide_decoder),
    ):
        assert model.tile == pytest.approx(scale * vision, rel=0.02)
        assert model.prefill(13 * model.tokens_per_tile, logits=0) / 13 == pytest.approx(
            scale * decoder, rel=0.02
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_proportions_at_the_size_that_is_served(shape):
    """Without writing it: sizes alone."""
    wanted, scale = SHAPES[shape], 14e9 / (SHAPES[shape].vision + SHAPES[shape].decoder)
    for path, parts in (
        (LARGE, ((widen.VISION, wanted.vision), (widen.DECODER, wanted.decoder))),
        (SMALL, ((widen.VISION, wanted.guide_vision), (widen.DECODER, wanted.guide_decoder))),
    ):
        for part, asked in parts:
            sizes = widen._size(part, config(path), scale * asked, more_layers=path == LARGE)
            assert part.flops(part.resized(config(path), *sizes)) == pytest.approx(scale * asked, rel=0.02)


def test_less_than_it_costs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"decoder: expected at least the 0.05\d+ GFLOP .* received 0.01"):
        widen.widen(LARGE, tmp_path / "no", 1e9, 1e7, more_layers=True)
    with pytest.raises(SystemExit):
        widen.main([str(tmp_path / "out"), "--gflop", "0.1"])


async def test_vllm_answers_as_transformers_does_with_the_trained_pair(pair, questions):
    large, small = pair
    engines = Engines((small, large), max_model_len=400)
    try:
        images, text = questions[0]
        prompt = engines.render_chat([user(text, *images)])
        tokens, logprobs = await engines.answer_large(prompt, max_tokens=6)
        expected = reference(LARGE).generate(*inputs(prompt), 6)
        assert tokens == expected.tokens
        torch.testing.assert_close(logprobs, expected.logprobs, rtol=1e-3, atol=1e-3)
        seen = await engines.look(prompt, max_tokens=6)
        answer = reference(SMALL).generate(*inputs(prompt), 6)
        assert list(seen.answer.token_ids) == answer.tokens
        importance = reference(SMALL).importance(*inputs(prompt), answer.tokens)
        torch.testing.assert_close(torch.cat(seen.importance), torch.cat(importance), rtol=1e-3, atol=1e-4)
    finally:
        engines.shutdown()
