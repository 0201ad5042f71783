"""Importance between layouts: boxes say what goes where, mass is conserved, equal layouts change nothing."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import LlavaOnevisionConfig

from vllm_sgl.families.llava_onevision import Anyres
from vllm_sgl.visual.layout import Layout, View, grid, tiled
from vllm_sgl.visual.transfer import Transfer, transfers

ANYRES = Anyres(384, 14, LlavaOnevisionConfig().image_grid_pinpoints, most=9)
SIZE = 640, 480
#: The image whole, in tiles with a thumbnail, in a finer or coarser grid, in LLaVA-OneVision's way.
LAYOUTS = {
    "grid": grid(11, 7),
    "finer grid": grid(33, 14),
    "tile": tiled(1, 1, 16, thumbnail=False),
    "four tiles": tiled(2, 2, 8, thumbnail=True),
    "twelve tiles": tiled(4, 3, 8, thumbnail=True),
    "anyres": ANYRES.layout(*SIZE),
}
PAIRS = list(product(LAYOUTS, LAYOUTS))


def importance(layout: Layout, seed: int = 0) -> torch.Tensor:
    """Few tokens matter, as in attention."""
    values = torch.rand(layout.visual_tokens, generator=torch.Generator().manual_seed(seed))
    return values**4


def by_boxes(values: torch.Tensor, source: Layout, target: Layout, wanted: list[int]) -> np.ndarray:
    """Mass [target's tokens], token by token, from the source's tokens in these views."""
    width, height = SIZE
    boxes, out = source.boxes(width, height), np.zeros(target.visual_tokens)
    senders = [token for number in wanted for token in source.views[number].tokens.flatten()]
    for number, (x0, y0, x1, y1) in enumerate(target.boxes(width, height)):
        left, top, right, bottom = boxes[senders].T
        across = np.minimum(right, x1) - np.maximum(left, x0)
        down = np.minimum(bottom, y1) - np.maximum(top, y0)
        shared, area = across.clip(0) * down.clip(0), (right - left) * (bottom - top)
        some = area > 0
        out[number] = (values.double().numpy()[senders][some] * shared[some] / area[some]).sum()
    return out


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_mass_is_what_boxes_overlap(source, target):
    source, target = LAYOUTS[source], LAYOUTS[target]
    values = importance(source)
    masses = Transfer(source, target).masses(values)
    alike = len(source.views) == len(target.views)
    for number, (view, mass) in enumerate(zip(target.views, masses, strict=True)):
        wanted = [number] if alike else list(range(len(source.views)))
        expected = by_boxes(values, source, target, wanted)[view.tokens]
        np.testing.assert_allclose(mass, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("source", "target"), [pair for pair in PAIRS if pair[1] != "anyres"])
def test_mass_is_conserved_where_the_target_covers_the_image_once(source, target):
    """By each view; the tiles of LLaVA-OneVision leave out what lies between them."""
    source, target = LAYOUTS[source], LAYOUTS[target]
    values = importance(source)
    seen = [float(values.double().numpy()[view.tokens].sum()) for view in source.views]
    masses = [float(mass.sum()) for mass in Transfer(source, target).masses(values)]
    assert masses == pytest.approx(
        seen if len(source.views) == len(target.views) else [sum(seen)] * len(masses)
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_between_equal_layouts_nothing_changes(name):
    layout = LAYOUTS[name]
    values = importance(layout)
    found = Transfer(layout, layout).importance(values)
    sees = np.concatenate([view.tokens.flatten() for view in layout.views])
    torch.testing.assert_close(found[sees], values[sees])


@pytest.mark.parametrize("name", ["anyres"])
def test_between_equal_layouts_with_separators(name):
    """What they had is lost: it is no place in the image."""
    layout = LAYOUTS[name]
    values = importance(layout)
    found = Transfer(layout, layout).importance(values)
    fine = layout.views[0].tokens
    torch.testing.assert_close(found[fine[:, -1] + 1], values[fine].max(dim=1).values)
    assert len(fine) == layout.visual_tokens - sum(view.tokens.size for view in layout.views)


def test_a_token_inside_another_has_its_importance():
    """Of a grid that each of the guide's tokens is cut into 2 x 3 of; the best are where the best one was."""
    coarse, fine = grid(4, 2), grid(12, 4)
    values = importance(coarse)
    found = Transfer(coarse, fine).importance(values)
    np.testing.assert_allclose(
        found.numpy().reshape(4, 12), np.kron(values.numpy().reshape(2, 4), np.ones((2, 3))), rtol=1e-6
    )


def test_a_token_over_several_has_their_mean():
    fine, coarse = grid(12, 4), grid(4, 2)
    values = importance(fine)
    means = values.view(2, 2, 4, 3).mean((1, 3)).flatten()
    torch.testing.assert_close(Transfer(fine, coarse).importance(values), means)


def test_a_grid_for_tiles_and_a_thumbnail():
    """The thumbnail's tokens rank by density: as the mean of the tokens that they cover."""
    target = LAYOUTS["twelve tiles"]
    values = importance(grid(64, 48))
    found = Transfer(grid(64, 48), target).importance(values, "joint")
    tiles, thumbnail = (found[view.tokens] for view in target.views)
    torch.testing.assert_close(thumbnail, tiles.view(8, 3, 8, 4).mean((1, 3)))


def test_tiles_and_a_thumbnail_for_a_grid():
    """Both see what the grid sees; the thumbnail's mass is spread thin."""
    source, target = LAYOUTS["four tiles"], grid(16, 16)
    values = torch.zeros(source.visual_tokens)
    tiles, thumbnail = (view.tokens for view in source.views)
    values[tiles[3, 5]], values[thumbnail[6, 7]] = 1.0, 2.0
    found = Transfer(source, target).importance(values).view(16, 16)
    expected = torch.zeros(16, 16)
    expected[3, 5] = 1.0
    expected[12:14, 14:16] = 2.0 / 4
    torch.testing.assert_close(found, expected)


def shares(kept: torch.Tensor, layout: Layout) -> list[float]:
    """Which share of each view's tokens is kept."""
    return [np.isin(view.tokens, kept.numpy()).mean() for view in layout.views]


@pytest.mark.parametrize("retention", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("source", ["grid", "four tiles"])
def test_views_that_rank_apart(source, retention):
    source, target = LAYOUTS[source], LAYOUTS["twelve tiles"]
    transfer, values = Transfer(source, target), importance(source)
    joint, separate, finest = (
        transfer.importance(values, views).sort(descending=True, stable=True).indices
        for views in ("joint", "separate", "finest")
    )
    most = int(retention * target.visual_tokens)
    wanted = most / target.visual_tokens
    assert shares(separate[:most], target) == pytest.approx([wanted] * 2, abs=1 / 64)
    tiles, thumbnail = (view.tokens.size for view in target.views)
    assert shares(finest[:most], target) == pytest.approx(
        [min(1, most / tiles), max(0, most - tiles) / thumbnail]
    )
    # Inside a view the order stays.
    for view in target.views:
        orders = [order[np.isin(order.numpy(), view.tokens)] for order in (joint, separate, finest)]
        own = transfer.importance(values, "joint")
        for order in orders[1:]:
            torch.testing.assert_close(own[order], own[orders[0]])


def test_ranking_apart_leaves_the_finest_view_as_it_is():
    source, target = LAYOUTS["grid"], LAYOUTS["four tiles"]
    transfer, values = Transfer(source, target), importance(source)
    fine = target.views[0].tokens
    for views in ("separate", "finest"):
        torch.testing.assert_close(
            transfer.importance(values, views)[fine], transfer.importance(values)[fine]
        )


@pytest.mark.parametrize(
    ("source", "target", "same_as"),
    [
        ("four tiles", "twelve tiles", "joint"),
        ("anyres", "four tiles", "joint"),
        ("tile", "twelve tiles", "finest"),
    ],
)
def test_views_rank_as_the_guide_saw_them_where_it_saw_as_many(source, target, same_as):
    transfer, values = Transfer(LAYOUTS[source], LAYOUTS[target]), importance(LAYOUTS[source])
    torch.testing.assert_close(transfer.importance(values), transfer.importance(values, same_as))
    other = {"joint": "finest", "finest": "joint"}[same_as]
    assert not transfer.importance(values).equal(transfer.importance(values, other))


def test_padding_has_neither_to_give_nor_to_get():
    """A token half in the padding gives it all to the half that shows something, and gets half as much."""
    wide = np.array([[-1.0, -0.5], [-0.25, 0.25], [0.25, 0.75], [0.75, 1.25]])
    padded = Layout(4, (View(np.array([[0, 1, 2, 3]]), across=wide),))
    whole = grid(4, 1)
    found = Transfer(padded, whole).importance(torch.tensor([5.0, 1.0, 0.0, 0.0]))
    assert found.tolist() == pytest.approx([2.0, 0, 0, 0])
    assert Transfer(padded, whole).masses(torch.tensor([5.0, 1.0, 1.0, 1.0]))[0].sum() == pytest.approx(3)
    assert Transfer(whole, padded).importance(torch.ones(4)).tolist() == pytest.approx([0, 0.5, 1, 0.5])


def test_nothing_but_separators():
    """Of a very thin image LLaVA-OneVision may leave no token in the grid's rows."""
    bare = Layout(7, (View(np.empty((3, 0), dtype=np.int64)), View(np.arange(4).reshape(2, 2))))
    found = Transfer(grid(2, 2), bare).importance(torch.arange(4.0), "joint")
    assert found.tolist() == [0, 1, 2, 3, 3, 0, 0]
    nothing = Layout(3, (View(np.empty((3, 0), dtype=np.int64)),))
    for views in ("joint", "separate", "finest"):
        assert Transfer(grid(2, 2), nothing).importance(torch.ones(4), views).tolist() == [0, 0, 0]
        assert Transfer(nothing, grid(2, 2)).importance(torch.ones(3), views).tolist() == [0] * 4


def test_importance_of_another_layout():
    with pytest.raises(ValueError, match=r"expected the importance of 8 visual tokens, .* received \[9\]"):
        Transfer(grid(4, 2), grid(2, 2)).importance(torch.ones(9))


def test_sizes_that_repeat_are_worked_out_once():
    asked = []

    def layout_of(width: int, height: int) -> Layout:
        asked.append((width, height))
        return grid(width // 10, height // 10)

    of = transfers(layout_of, layout_of)
    assert of(40, 20) is of(40, 20)
    assert of(20, 40).target.visual_tokens == 8
    assert asked == [(40, 20)] * 2 + [(20, 40)] * 2
