"""Guides that see an image in other boxes: what the readers see is what the models' own preprocessing shows
them, and an answer on carried tokens is the reference's on the same tokens."""

import json

import pytest
import torch

from benchmarks.crossed import __main__ as command
from benchmarks.crossed.measure import RETENTIONS, VIEWS, Large, Look, Setting, measure
from benchmarks.crossed.readers import InternVLReader
from examples.demo.shipped import LARGE, SMALL
from tests.support.rendering import chat_prompt, pixel_values, render
from tools.reference import select
from tools.sign_reading import example
from tools.sign_reading.scene import paint

EXAMPLES = [example("test", number) for number in (0, 1, 2)]
PAIR = next(e for e in (example("test", n) for n in range(50)) if len(e.scenes) == 2)


@pytest.fixture(scope="module")
def large():
    return InternVLReader(LARGE)


@pytest.mark.parametrize("tiles", [12, 4, 1])
def test_images_are_the_models_own(tiles):
    config = json.loads((SMALL / "config.json").read_text()) | {"max_dynamic_patch": tiles}
    reader = InternVLReader(SMALL, tiles)
    for made in EXAMPLES:
        picture = paint(made.scenes[0])
        expected = pixel_values(picture, config)
        torch.testing.assert_close(reader.image(picture), expected)
        assert reader.layout(picture).visual_tokens == 16 * len(expected)


def test_prompts_are_the_models_own(large):
    pictures = [paint(scene) for scene in PAIR.scenes]
    ids, _ = render(LARGE, chat_prompt(PAIR.question.text, 2), pictures)
    assert large.prompt([large.layout(picture) for picture in pictures], PAIR.question) == ids


def test_an_answer_is_right_where_the_references_is(large):
    guide, verdicts = InternVLReader(SMALL, 4), []
    for made in (*EXAMPLES, PAIR):
        pictures = [paint(scene) for scene in made.scenes]
        asked, look = Large(large, pictures, made), Look.of(guide, pictures, made)
        rendered = render(LARGE, chat_prompt(made.question.text, len(pictures)), pictures)
        for keep in (None, *(select(look.carried(asked.layouts, "joint"), r) for r in (0.35, 0.02))):
            answer = large.reference.generate(*rendered, 8, keep)
            text = large.reference.tokenizer.decode(answer.tokens, skip_special_tokens=True)
            verdicts.append(asked.right(keep))
            assert verdicts[-1] == (text == made.question.answer)
    assert set(verdicts) == {True, False}


def test_between_equal_tilings_nothing_is_changed(large):
    pictures = [paint(scene) for scene in PAIR.scenes]
    look = Look.of(InternVLReader(SMALL), pictures, PAIR)
    carried = look.carried([large.layout(picture) for picture in pictures], "joint")
    for one, other in zip(carried, look.importance, strict=True):
        torch.testing.assert_close(one, other)


def test_every_setting_is_measured_once_per_question(large):
    guides = [InternVLReader(SMALL), InternVLReader(SMALL, 4)]
    found = measure(large, guides, EXAMPLES)
    assert len(found) == 1 + len(RETENTIONS) + 2 * (1 + len(VIEWS) * len(RETENTIONS))
    assert {len(measured.right) for measured in found.values()} == {len(EXAMPLES)}
    row = found[Setting(guides[1].name, "joint", 0.35)].row(
        large.name, Setting(guides[1].name, "joint", 0.35)
    )
    assert row["guide"] == "signs-small, up to 4 tiles"
    assert row["guide_tokens"] <= 80 < 16 * 9
    assert row["right"].count("1") == row["accuracy"] * len(EXAMPLES)


def test_figures_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "TILES", (12,))
    out = tmp_path / "figures.json"
    command.main(["tilings", "--questions", "2", "--out", str(out)])
    found = json.loads(out.read_text())
    assert found["commit"]
    alone = [row for row in found["rows"] if row["guide"] is None and row["retention"] == 1]
    assert [row["questions"] for row in alone] == [2]
