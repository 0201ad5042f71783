"""Tiling is vLLM's own, downsampling keeps its budget, and every visual token knows what it sees."""

import pytest
from vllm.transformers_utils.processors import internvl

from benchmarks.accuracy.rankings import box_importance
from tests.support.images import random_image
from tools.internvl_reference.tiling import Tiling
from vllm_sgl.evaluate.questions import Question

TILING = Tiling(side=112, cells=4, min_tiles=1, max_tiles=12, thumbnail=True)
SIZES = [(112, 112), (448, 336), (336, 448), (560, 224), (301, 207), (97, 800), (1500, 1100), (5, 5)]


@pytest.mark.parametrize("size", SIZES)
def test_grids_are_vllms(size):
    ratios = internvl.get_internvl_target_ratios(1, 12)
    tiles, width, height = internvl.calculate_internvl_targets(
        orig_width=size[0], orig_height=size[1], target_ratios=ratios, image_size=112, use_thumbnail=True
    )
    grid = TILING.grid(*size)
    assert (grid[0] * 112, grid[1] * 112) == (width, height)
    assert TILING.tokens(grid) == tiles * 16 == len(TILING.token_boxes(*size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("retention", [0.64, 0.35, 0.18, 0.09])
def test_a_downsampled_image_keeps_its_budget(size, retention):
    budget = retention * TILING.tokens(TILING.grid(*size))
    smaller = TILING.downsampled(*size, budget)
    grid = TILING.grid(*smaller)
    assert smaller == (grid[0] * 112, grid[1] * 112)
    assert TILING.tokens(grid) <= max(budget, 16)


def test_downsampling_takes_the_grid_that_shows_most():
    assert TILING.downsampled(448, 336, 0.64 * 208) == (336, 224)  # 3 x 2: 7 tiles, where 8.3 are allowed
    assert TILING.downsampled(560, 224, 0.35 * 176) == (224, 112)
    assert TILING.downsampled(448, 336, 0.09 * 208) == (112, 112)


def test_tokens_run_row_by_row_through_each_tile_and_the_thumbnail_sees_all():
    boxes = TILING.token_boxes(448, 336)  # 4 x 3 tiles, 28 pixels a token
    assert boxes[0].tolist() == [0, 0, 28, 28]
    assert boxes[1].tolist() == [28, 0, 56, 28]
    assert boxes[4].tolist() == [0, 28, 28, 56]
    assert boxes[16].tolist() == [112, 0, 140, 28]
    assert boxes[4 * 16].tolist() == [0, 112, 28, 140]
    assert boxes[12 * 16].tolist() == [0, 0, 112, 84]
    assert boxes[-1].tolist() == [336, 252, 448, 336]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert areas[:192].sum() == areas[192:].sum() == 448 * 336


def test_box_importance_ranks_what_covers_the_answer_first(tmp_path):
    random_image(0, 224, 112).save(tmp_path / "image.png")
    path = tmp_path / "image.png"
    question = Question("a", (path, path), "?", ("42",), boxes=((1, 140, 28, 168, 42),))
    tiling = Tiling(side=112, cells=4, min_tiles=1, max_tiles=2, thumbnail=True)
    without, importance = box_importance(question, tiling)
    assert without.isfinite().all()
    assert without.max() < importance.min()
    order = importance.argsort(descending=True).tolist()
    assert order[0] == 16 + 5  # the second tile's second row, second token: half covered
    assert importance[21] == 0.5
    assert order[1] == 32 + 6  # the thumbnail's token over the same place, 56 x 28 pixels
    assert importance[38] == pytest.approx(28 * 14 / (56 * 28))
    assert (importance > 0).sum() == 2
    assert importance[0] < importance[20] <= 0
