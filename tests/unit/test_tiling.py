"""Whether few tiles pay, on made-up costs."""

from dataclasses import replace

import pytest

from vllm_sgl.decide.costs import Costs
from vllm_sgl.engine.measure_costs import vision_seconds, why
from vllm_sgl.prune.auto import LARGE_PART, best_policy

#: Prefill 1 ms per token.
COSTS = Costs(guide=(0.010, 1e-4), decode=0.005, prefill=((10, 0.010), (1000, 1.0)))


def test_vision_is_what_grows_with_the_image_beyond_its_prefill():
    # 5 ms whatever the image, 0.4 ms per visual token; 20 tokens of text.
    whole = {visual: (0.005 + 4e-4 * visual + (visual + 20) / 1000, visual + 20) for visual in (16, 112, 208)}
    assert vision_seconds(COSTS, whole) == pytest.approx(4e-4)


def test_vision_of_one_size_of_image():
    assert vision_seconds(COSTS, {100: (0.12 + 0.03, 120)}) == pytest.approx(3e-4)


def test_nothing_measured_and_noise_are_no_vision():
    assert vision_seconds(COSTS, {}) == 0
    assert vision_seconds(COSTS, {16: (0.05, 20), 112: (0.12, 132)}) == 0


def test_share_of_the_prefill():
    assert COSTS.vision_share == 0
    assert replace(COSTS, vision=1e-3).vision_share == pytest.approx(0.5)
    assert replace(COSTS, vision=1e-3 / 3).vision_share == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("vision", "expected"), [(0.0, "top"), (0.9e-3 / 3, "top"), (1.1e-3 / 3, "tiles"), (1e-2, "tiles")]
)
def test_few_tiles_where_the_vision_encoder_is_a_large_part(vision, expected):
    costs = replace(COSTS, vision=vision)
    assert (costs.vision_share >= LARGE_PART) == (expected == "tiles")
    assert best_policy(costs.vision_share) == expected


def test_without_costs_the_plain_ranking():
    assert best_policy(None) == "top"
    assert why(None) == "no costs could be measured"
    assert why(replace(COSTS, vision=1e-3)) == "the vision encoder takes 50% of the large model's prefill"
