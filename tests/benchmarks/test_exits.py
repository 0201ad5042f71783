"""Exits worked out from answers at hand, and what they cost."""

import numpy as np
import pytest

from benchmarks.accuracy import exits
from benchmarks.accuracy.cost import ModelCost
from benchmarks.true_size import INTERNVL2, config


def questions(**changed):
    columns = {
        "score": [0.9, 0.6, 0.3, 0.2],
        "confidence": [0.9, 0.7, 0.5, 0.2],
        "small": [1, 1, 0, 0],
        "large": [1, 0, 1, 1],
        "guide": [1] * 4,
        "consistency": [0.5] * 4,
        "pruned": [4] * 4,
        "plain": [10] * 4,
    }
    return exits.Questions(**{name: np.array(value, float) for name, value in (columns | changed).items()})


def test_no_exits():
    point = exits.at(questions(), None)
    assert (point.share, point.accuracy, point.exited_accuracy) == (0, 0.75, None)
    assert point.cost == (1 + 4) / 10  # no threshold, no consistency pass


def test_some_exit():
    point = exits.at(questions(), 0.6)
    assert (point.share, point.accuracy, point.exited_accuracy) == (0.5, 1, 1)
    assert (point.share_small_wrong, point.accuracy_small_wrong) == (0, 1)
    # Confidence 0.2 bounds the score by 0.6: the fourth still has its pass.
    assert point.cost == pytest.approx((4 * 1 + 4 * 0.5 + 2 * 4) / 40)
    assert exits.at(questions(), 0.65).cost == pytest.approx((4 * 1 + 3 * 0.5 + 3 * 4) / 40)


def test_a_curve_runs_from_none_to_all():
    curve = exits.curve(questions())
    assert [point.threshold for point in curve] == [None, 0.9, 0.6, 0.3, 0.2]
    assert [point.share for point in curve] == [0, 0.25, 0.5, 0.75, 1]
    assert curve[-1].accuracy == 0.5
    assert curve[-1].cost == pytest.approx(1.5 / 10)


def test_cost_is_unknown_without_the_large_models_own_answers():
    assert exits.at(questions(plain=[10, 10, np.nan, 10]), 0.5).cost is None


@pytest.mark.parametrize("size", ["2B", "26B"])
def test_flops_per_token_are_twice_the_parameters(size):
    """The usual estimate: two operations per weight, embeddings apart."""
    model, true = ModelCost.of(config(INTERNVL2[size])), INTERNVL2[size]
    decoder = true.decoder
    weights = decoder.parameters() - decoder.vocab_size * decoder.hidden_size
    assert model.token + model.head == pytest.approx(2 * weights, rel=1e-3)
    tokens = (true.image_size // true.patch_size) ** 2 + 1
    vision = true.vision.parameters(true.image_size, true.patch_size)
    attention = true.vision.num_hidden_layers * 4 * tokens**2 * true.vision.hidden_size
    assert model.tile == pytest.approx(2 * tokens * vision + attention, rel=0.03)


def test_an_answer_is_prefill_and_a_step_per_further_token():
    model = ModelCost(tile=1000, token=10, pair=1, head=100, tokens_per_tile=4)
    assert model.prefill(3) == 3 * 10 + (1 + 2 + 3) + 100
    assert model.decode(3, answer_tokens=1) == 0
    assert model.decode(3, answer_tokens=3) == 2 * (10 + 100) + 4 + 5
    assert model.answer(10, visual_tokens=8, kept=1, answer_tokens=1) == 2000 + model.prefill(3)
    assert model.answer(10, visual_tokens=8, kept=1, answer_tokens=1, tiles=1) == 1000 + model.prefill(3)
    assert model.answer(10, visual_tokens=8, kept=0, answer_tokens=1, tiles=0) == model.prefill(2)
    # The passes token by token cost what one pass over all of them does, but for the logits.
    assert model.prefill(3) + model.decode(3, 3) == model.prefill(5, logits=3)
