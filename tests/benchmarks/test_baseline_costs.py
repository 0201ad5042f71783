"""What the baselines cost, product by product."""

import pytest

from benchmarks.accuracy.baselines import tome
from benchmarks.accuracy.baselines.cost import BaselineCost
from benchmarks.accuracy.cost import ModelCost, PairCost
from benchmarks.true_size import INTERNVL2, config

COST = BaselineCost(
    layers=4, hidden=10, vision_layers=2, vision_width=6, vision_units=7, vision_heads=3, cells=8
)


def test_fastv_has_two_layers_of_everything():
    assert COST.fastv(prefill=100, pruned_prefill=20) == 40


def test_sets():
    assert COST.divprune(5) == 2 * 25 * 10
    # Similarities, relevance, and for the second and third token one and two products for each token.
    assert COST.cdpruner(5, 3, words=2) == 2 * (25 * 24 + 5 * 2 * 10 + (0 + 1 + 2) * 5)


def test_merging_saves_rows_behind_each_layer():
    """Two tiles of 8 cells, 5 kept: 3 and 2 of them, so two layers merge 3 and 2, or 4 and 2."""
    assert (tome.schedule(8, 3, 2), tome.schedule(8, 2, 2)) == ([3, 2], [4, 2])

    def attention(cells):
        rows = 4 * cells + 1
        return rows * (4 * 36 + 2 * rows * 6)

    def mlp(cells):
        return (4 * cells + 1) * 2 * 6 * 7

    def ends(cells):
        return cells * (24 * 10 + 100)

    def match(cells):
        return (cells // 2) * (cells - cells // 2) * 4 * 2

    whole = 2 * attention(8) + 2 * mlp(8) + ends(8)
    three = attention(8) + match(8) + mlp(5) + attention(5) + match(5) + mlp(3) + ends(3)
    two = attention(8) + match(8) + mlp(4) + attention(4) + match(4) + mlp(2) + ends(2)
    assert COST.tome(16, 5) == 2 * (three + two - 2 * whole)
    assert COST.tome(16, 16) == 0


def test_a_whole_tile_is_the_model_costs_tile():
    """But for the patch embedding: the same count as where no baseline is."""
    values = config(INTERNVL2["26B"])
    tile, cost = ModelCost.of(values).tile, BaselineCost.of(values)
    embedding = 2 * 1024 * 3 * 14**2 * 3200
    assert cost._tile([0] * cost.vision_layers) == pytest.approx(tile - embedding, rel=1e-6)


def test_choosing_costs_little_beside_the_large_model():
    """InternVL2-26B, 13 tiles, 35 % kept: sets well below 1 %, FastV's two layers 1 to 2 %, and merging
    saves most of the encoder."""
    values = config(INTERNVL2["26B"])
    pair = PairCost.of(values, config(INTERNVL2["2B"]))
    record = {"prompt_tokens": 3400, "visual_tokens": 3328, "kept_tokens": 1164, "answer_tokens": 4}
    whole = pair.large_answer({**record, "kept_tokens": 3328})
    shares = {name: pair.baseline(name, record) / whole for name in ("divprune", "cdpruner", "fastv", "tome")}
    assert 0 < shares["divprune"] < shares["cdpruner"] < 0.01
    assert 0.005 < shares["fastv"] < 0.02
    assert -0.5 < shares["tome"] < -0.1
    assert pair.baseline("oracle", record) is None
