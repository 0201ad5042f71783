"""Crops of images that are encoded as a whole: boxes are the best that fit, tokens stand where they stood,
and costs are those of the published model."""

import json
from itertools import product

import numpy as np
import pytest
import torch

from benchmarks.crossed.__main__ import NATIVE
from benchmarks.crossed.readers import NativeReader
from benchmarks.native_crops import __main__ as command
from benchmarks.native_crops.asked import Asked
from benchmarks.native_crops.boxes import RULES, Box, richest, whole
from benchmarks.native_crops.checks import same_image
from benchmarks.native_crops.cost import MODELS, NativeCost
from benchmarks.native_crops.measure import Measured, at_cost, known
from tools.sign_reading import example
from tools.sign_reading.scene import paint

ONE = example("test", 0)
PAIR = next(e for e in (example("test", n) for n in range(50)) if len(e.scenes) == 2)
SEVEN = MODELS["Qwen2-VL-7B"]


@pytest.fixture(scope="module")
def reader():
    return NativeReader(NATIVE)


def asked_of(reader, made):
    return Asked(reader, [paint(scene) for scene in made.scenes], made)


def every_box(shape):
    rows, columns = shape
    for top, left in product(range(rows), range(columns)):
        for bottom, right in product(range(top + 1, rows + 1), range(left + 1, columns + 1)):
            yield Box(top, left, bottom, right)


@pytest.mark.parametrize("budget", [1, 4, 7, 12, 30])
def test_the_richest_box_is_the_richest_of_all(budget):
    values = np.random.default_rng(budget).random((5, 6)) ** 4
    best = max(values[box.slices].sum() for box in every_box(values.shape) if box.area <= budget)
    (box,) = richest([values], budget)
    assert box.area <= budget
    assert values[box.slices].sum() == pytest.approx(best)


@pytest.mark.parametrize("budget", [2, 5, 11, 24])
def test_two_images_share_a_budget_as_is_best(budget):
    rng = np.random.default_rng(budget)
    values = [rng.random((3, 4)) ** 3, 2 * rng.random((4, 3)) ** 3]
    pairs = product(every_box((3, 4)), every_box((4, 3)))
    best = max(
        values[0][one.slices].sum() + values[1][two.slices].sum()
        for one, two in pairs
        if one.area + two.area <= budget
    )
    boxes = richest(values, budget)
    assert sum(box.area for box in boxes) <= budget
    assert sum(part[box.slices].sum() for part, box in zip(values, boxes, strict=True)) == pytest.approx(best)


@pytest.mark.parametrize("budget", [2, 3, 9, 20, 40, 72])
def test_the_bounding_box_fills_its_budget_around_what_matters(budget):
    values = [np.full((6, 7), 0.01), np.full((5, 6), 0.02)]
    values[0][2, 3] = values[0][3, 3] = 1.0
    boxes = RULES["bounding"](values, budget)
    assert min(box.area for box in boxes) >= 1
    assert sum(box.area for box in boxes) <= budget
    assert boxes[0].mask((6, 7))[2:4, 3].any()
    room = budget - sum(box.area for box in boxes)
    for box, (rows, columns) in zip(boxes, ((6, 7), (5, 6)), strict=True):
        grows = [box.columns] * (box.rows < rows) + [box.rows] * (box.columns < columns)
        assert all(more > room for more in grows)


@pytest.mark.parametrize("rule", RULES)
def test_a_budget_without_a_token_for_every_image_is_refused(rule):
    with pytest.raises(ValueError, match="at least one token per image, 2; received 1"):
        RULES[rule]([np.ones((2, 2)), np.ones((2, 2))], 1)


@pytest.mark.parametrize("made", [ONE, PAIR], ids=["one", "pair"])
def test_tokens_of_a_crop_stand_where_they_stood(reader, made):
    asked = asked_of(reader, made)
    boxes = [Box(1, 2, 4, 7), Box(3, 0, 5, 2)][: len(asked.shapes)]
    shown = asked.cropped(boxes)
    assert shown.encoded == [box.area for box in boxes]
    assert shown.kept == shown.visual.shape[0] == sum(shown.encoded)
    images = [reader.image(picture) for picture in asked.pictures]
    ids = torch.tensor(reader.prompt(asked.layouts, made.question))
    places, after = reader.reference.positions(ids, images)  # of the whole images, by the reference
    visual = places[:, ids == reader.reference.image_token_id].split(asked.tokens, dim=1)
    cut = [
        part[:, torch.from_numpy(box.mask(shape).ravel())]
        for part, box, shape in zip(visual, boxes, asked.shapes, strict=True)
    ]
    batch = shown.batch
    torch.testing.assert_close(batch.positions[:, 0, batch.visual[0]], torch.cat(cut, dim=1))
    answer = len(batch.ids[0]) - len(ids) + sum(asked.tokens) - shown.kept
    assert batch.positions[:, 0, -answer].tolist() == [after] * 3


def test_a_crop_is_encoded_alone(reader):
    asked = asked_of(reader, ONE)
    box = Box(2, 1, 6, 5)
    image = reader.image(asked.pictures[0])
    _, rows, columns = image["image_grid_thw"].tolist()
    inside = torch.from_numpy(box.mask((rows // 2, columns // 2)).ravel())
    pixels = image["pixel_values"].view(len(inside), 4, -1)[inside].flatten(0, 1)
    grid = torch.tensor([1, 2 * box.rows, 2 * box.columns])
    alone = reader.reference.visual_features({"pixel_values": pixels, "image_grid_thw": grid})
    torch.testing.assert_close(asked.features([box]), alone, atol=1e-5, rtol=1e-4)
    among = asked.features([whole(asked.shapes[0])])[inside]
    assert (alone - among).abs().max() > 1e-3  # patches see one another


def test_the_whole_image_is_a_crop_too(reader):
    assert same_image(reader, [ONE, PAIR]) < 1e-4


def test_pruning_inside_a_crop_keeps_the_best_of_it(reader):
    asked = asked_of(reader, ONE)
    scores = torch.arange(sum(asked.tokens)).float()
    box = Box(0, 0, 4, 4)
    shown = asked.pruned([box], [scores], 5.5 / sum(asked.tokens))
    assert (shown.encoded, shown.kept) == ([16], 5)
    torch.testing.assert_close(shown.visual, asked.features([box])[[11, 12, 13, 14, 15]])


def test_doubled_tokens_surround_the_place_of_the_one_they_replace(reader):
    asked = asked_of(reader, PAIR)
    boxes = [Box(1, 2, 3, 5), Box(4, 4, 5, 5)]
    plain, between = asked.cropped(boxes), asked.doubled(boxes, fractional=True)
    assert between.encoded == [4 * area for area in plain.encoded]
    assert len(between.visual) == sum(between.encoded)
    where = plain.batch.positions[:, 0, plain.batch.visual[0]].float()
    four = between.batch.positions[:, 0, between.batch.visual[0]]
    first = four[:, :24].view(3, 2, 2, 3, 2)
    torch.testing.assert_close(first.mean((2, 4)).flatten(1), where[:, :6])
    assert (first[1, :, 1] - first[1, :, 0]).unique().tolist() == [0.5]
    assert (first[2, ..., 1] - first[2, ..., 0]).unique().tolist() == [0.5]
    text = between.batch.positions[:, 0, ~between.batch.visual[0]]
    torch.testing.assert_close(text, plain.batch.positions[:, 0, ~plain.batch.visual[0]].float())


def test_a_doubled_image_stands_as_an_image_of_that_size(reader):
    asked = asked_of(reader, ONE)
    rows, columns = asked.shapes[0]
    batch = asked.doubled([Box(1, 2, 3, 5)], fractional=False).batch
    own = batch.positions[:, 0, batch.visual[0]] - batch.positions[:, :1, batch.visual[0]].min()
    assert own[1].unique().tolist() == [2, 3, 4, 5]
    assert own[2].unique().tolist() == [4, 5, 6, 7, 8, 9]
    last, first = batch.positions[0, 0, batch.visual[0].nonzero()[[-1, 0], 0] + torch.tensor([1, 0])].tolist()
    assert last - first == 2 * max(rows, columns)


def test_a_smaller_image_keeps_its_shape_and_budget(reader):
    asked = asked_of(reader, ONE)
    rows, columns = asked.shapes[0]
    shown = asked.smaller(0.25)
    assert shown.encoded == [rows * columns // 4]
    places = shown.batch.positions[:, 0, shown.batch.visual[0]]
    assert (places[1:].amax(1) - places[1:].amin(1) + 1).tolist() == [rows // 2, columns // 2]


def test_what_is_known_is_nearest_to_the_answer(reader):
    asked = asked_of(reader, PAIR)
    found = known(asked)
    for image, x0, y0, x1, y1 in PAIR.answer_boxes():
        at = (y0 + y1) // 2 // 28 * asked.shapes[image][1] + (x0 + x1) // 2 // 28
        assert found[image][at] == 1
    assert all(len(part) == tokens for part, tokens in zip(found, asked.tokens, strict=True))


def test_costs_are_the_published_models():
    """Parameters, from the operations of one token: 675M of vision encoder (arXiv 2409.12191, table 1), and a
    decoder of Qwen2-7B's 6.53B without its embeddings."""
    assert SEVEN.patch / 2 + SEVEN.merge / 2 == pytest.approx(675e6, rel=0.003)
    assert SEVEN.token / 2 == pytest.approx(6.53e9, rel=0.003)
    assert SEVEN.prefill([165], [165], 165) == pytest.approx(1)
    assert SEVEN.prefill([64, 64], [64, 64], 128) == pytest.approx(1)
    assert SEVEN.prefill([100], [100], 10) > SEVEN.vision_share() > SEVEN.prefill([100], [10], 10)
    half = NativeCost.vision(SEVEN, 512)
    assert half < SEVEN.vision(1024) / 2  # full attention


def test_equal_cost_lies_between_its_neighbours():
    cheap, dear = Measured(right=[True, False]), Measured(right=[True, True])
    cheap.costs["m"], dear.costs["m"] = [0.2, 0.4], [0.6, 0.8]
    assert at_cost([dear, cheap], "m", 0.4).tolist() == pytest.approx([1, 0.25])
    assert at_cost([dear, cheap], "m", 0.8) is None


def test_figures_are_written(tmp_path, capsys):
    out = tmp_path / "figures.json"
    command.main(["--questions", "2", "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["differ_from_recorded"] == {
        "all 1": 0, "pruned 0.35": 0, "pruned 0.18": 0, "pruned 0.09": 0, "questions": 2,
    }  # fmt: skip
    plain = found["rows"][0]
    assert (plain["way"], plain["cost_Qwen2-VL-7B"], plain["encoded"]) == ("all", 1, 1)
    assert {row["questions"] for row in found["rows"]} == {2}
    assert {row["way"] for row in found["equal_cost"]} > {"pruned", "crop", "bounding"}
    assert "a crop to the whole image answers as the image" in capsys.readouterr().out
