"""The sign-reading data set: reproducible, answerable, and cut into tiles as promised."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tools.internvl_reference.tiling import Tiling
from tools.sign_reading import example, write
from tools.sign_reading.clips import FRAMES, SIGNS, clip
from tools.sign_reading.crowd import crowded
from tools.sign_reading.scene import CELL, TILE, paint
from tools.sign_reading.split import GRIDS, STYLES, write_examples
from tools.sign_reading.training.sizes import SMALL, config, tokenizer

EXAMPLES = [example("test", number) for number in range(60)]


def test_an_example_depends_on_split_and_number_alone():
    again = example("test", 7)
    assert again == example("test", 7) != example("train", 7)
    assert again != example("test", 8)
    pixels = [np.asarray(paint(scene)) for scene in again.scenes]
    for scene, first in zip(example("test", 7).scenes, pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(paint(scene)), first)


def test_every_question_has_one_answer():
    kinds = set()
    for made in EXAMPLES:
        signs = [sign for scene in made.scenes for sign in scene.signs]
        colours, codes = [s.colour for s in signs], [s.code for s in signs]
        assert 3 <= len(signs) <= 6
        assert len(set(colours)) == len(set(codes)) == len(signs)
        question = made.question
        kinds.add(question.kind)
        match question.kind:
            case "code":
                (index,) = question.signs
                assert question.answer == codes[index]
                assert f" {colours[index]} sign" in question.text
            case "count":
                assert question.answer == str(len(signs))
    assert kinds == {"code", "count"}


def test_a_sign_lies_in_one_tile_and_shares_no_visual_token():
    for made in EXAMPLES:
        for scene in made.scenes:
            seen: set[tuple[int, int]] = set()
            for sign in scene.signs:
                x0, y0, x1, y1 = sign.box
                assert (x0 // TILE, y0 // TILE) == ((x1 - 1) // TILE, (y1 - 1) // TILE)
                assert 0 <= x0 < x1 <= scene.size[0]
                assert 0 <= y0 < y1 <= scene.size[1]
                cells = {(x // CELL, y // CELL) for x in range(x0, x1) for y in range(y0, y1)}
                assert seen.isdisjoint(cells)
                seen |= cells


def test_the_image_processor_only_cuts():
    tiling = Tiling.of(config(SMALL, tokenizer()))
    for made in EXAMPLES:
        for scene in made.scenes:
            assert tiling.grid(*scene.size) == scene.grid


def test_fonts_and_a_background_are_held_out():
    train, test = STYLES["train"], STYLES["test"]
    assert set(train.fonts).isdisjoint(test.fonts)
    assert set(test.backgrounds) - set(train.backgrounds)


def test_a_sign_is_painted_where_the_example_says():
    made = next(e for e in EXAMPLES if e.question.kind == "code" and len(e.scenes) == 1)
    (box,) = made.answer_boxes()
    image, x0, y0, x1, y1 = box
    assert image == 0
    without = np.asarray(paint(made.scenes[0])).astype(int)
    (index,) = made.question.signs
    signs = made.scenes[0].signs
    blank = replace(made.scenes[0], signs=signs[:index] + signs[index + 1 :])
    changed = np.abs(np.asarray(paint(blank)).astype(int) - without).max(-1) > 60
    inside = changed[y0:y1, x0:x1]
    assert inside.mean() > 0.3


def test_written_files(tmp_path):
    path = write("test", 5, tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        made = example("test", number)
        assert line["answers"] == [made.question.answer]
        sizes = [Image.open(tmp_path / name).size for name in line["images"]]
        assert sizes == [scene.size for scene in made.scenes]


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="train, test; got 'dev'"):
        write("dev", 1, tmp_path)


def test_a_crowded_scene_asks_for_the_only_sign_of_its_colour():
    for number in range(20):
        made = crowded(number, 12)
        (scene,) = made.scenes
        assert len(scene.signs) == 12
        (index,) = made.question.signs
        asked = scene.signs[index]
        assert made.question.answer == asked.code
        assert f" {asked.colour} sign" in made.question.text
        assert [sign.colour for sign in scene.signs].count(asked.colour) == 1
        assert len({sign.code for sign in scene.signs}) == 12
        assert scene.grid in GRIDS["test"]


def test_a_clip_shows_each_sign_in_one_frame_or_in_two_that_follow_each_other():
    lengths = set()
    for number in range(20):
        made = clip(number)
        assert [scene.size for scene in made.scenes] == [(TILE, TILE)] * FRAMES
        assert len({(scene.background, scene.seed) for scene in made.scenes}) == 1
        assert max(len(scene.signs) for scene in made.scenes) <= 2
        frames: dict[tuple[str, str], list[int]] = {}
        for frame, scene in enumerate(made.scenes):
            for sign in scene.signs:
                frames.setdefault((sign.colour, sign.code), []).append(frame)
        assert len(frames) == SIGNS == len({colour for colour, _ in frames})
        for shown in frames.values():
            assert shown == list(range(shown[0], shown[-1] + 1))
            lengths.add(len(shown))
        (asked,) = (key for key in frames if key[1] == made.question.answer)
        assert f" {asked[0]} sign" in made.question.text
        assert [box[0] for box in made.answer_boxes()] == frames[asked]
    assert lengths == {1, 2}


def test_examples_of_any_kind_are_written_alike(tmp_path):
    path = write_examples([clip(0), crowded(0, 12)], "mixed", tmp_path)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["id"], len(first["images"])) == ("mixed-00000", FRAMES)
    assert (second["id"], len(second["images"])) == ("mixed-00001", 1)
    with Image.open(tmp_path / first["images"][3]) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(paint(clip(0).scenes[3])))
