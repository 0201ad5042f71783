"""What is drawn: tokens bright and dim, text that fits, and a picture of sane size for every shape."""

import numpy as np
import pytest
from PIL import Image

from tests.explain.made_up import explanation
from vllm_sgl.commands.explain import picture, pixels
from vllm_sgl.commands.explain.clip import moments
from vllm_sgl.commands.explain.explanation import PrunedAnswer, Said
from vllm_sgl.commands.explain.sheet import fold, font, text_width
from vllm_sgl.core import Reason


def test_a_tokens_pixels_have_its_value():
    spread = pixels.spread(np.array([[1, 2, 3], [4, 5, 6]]), 4, 6)
    assert spread.tolist() == [[1, 1, 2, 2, 3, 3]] * 2 + [[4, 4, 5, 5, 6, 6]] * 2


def test_what_is_kept_is_as_it_was_and_the_rest_dim():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    shown = pixels.spotlight(image, np.array([[pixels.KEPT, pixels.DROPPED], [pixels.DROPPED, pixels.KEPT]]))
    bright = np.kron(np.array([[1, 0], [0, 1]]), np.ones((4, 4))).astype(bool)
    assert (shown[bright] == image[bright]).all()
    assert shown[~bright].max() <= 110 < image[~bright].max()


@pytest.mark.parametrize("grey", [0, 255])
def test_dim_differs_from_kept_in_black_and_in_white(grey):
    shown = pixels.spotlight(np.full((2, 4, 3), grey, np.uint8), np.array([[pixels.KEPT, pixels.DROPPED]]))
    assert abs(shown[0, 0].astype(int) - shown[0, 3].astype(int)).min() > 25


def test_a_closed_tile_shows_stripes_and_nothing_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (90, 180, 3)).astype(np.uint8)
    fates = np.array([[pixels.CLOSED, pixels.DROPPED]])
    shown, other = pixels.spotlight(image, fates), pixels.spotlight(255 - image, fates)
    assert (shown[:, :90] == other[:, :90]).all()
    assert (shown[:, 90:] != other[:, 90:]).any()
    assert len(np.unique(shown[:, :90].reshape(-1, 3), axis=0)) == 2
    assert shown[:, :90].min() > shown[:, 90:].max() - 15  # lighter than what is dim


def test_open_and_closed_tiles_are_told_apart():
    explained = explanation("square", "single")
    kept = [np.array([0, 1, 40]), np.array([], dtype=np.int64)]
    pruned = PrunedAnswer(0.1, kept, Said("42", 2, True))
    opened = pruned.open_tiles(explained.images)
    assert opened == [[0, 2], []]
    fates = picture._fates(explained.images[0], kept[0], opened[0])
    assert fates.reshape(5, 16).max(1).tolist() == [2, 0, 2, 0, 0]
    assert (fates.reshape(5, 16).min(1).tolist(), (fates == pixels.KEPT).sum()) == ([1, 0, 1, 0, 0], 3)
    assert not picture._fates(explained.images[1], kept[1], opened[1]).any()


def test_heat_follows_the_values():
    image = np.full((4, 8, 3), 128, np.uint8)
    shown = pixels.heat(image, np.array([[0.0, 1.0]]), lambda v: np.stack([v, v, v, v], axis=-1))
    assert (shown[:, :4] == int(0.3 * 128)).all()
    assert (shown[:, 4:] == int(0.3 * 128 + 0.7 * 255)).all()


@pytest.mark.parametrize("values", [[0.0, 0.0], [3.0, 3.0], [0.0, 1e-30, 5.0]])
def test_any_importance_has_a_scale(values):
    low, high = pixels.scale(np.array(values, dtype=np.float32))
    assert 0 < low < high


def test_images_are_shown_neither_blurred_nor_huge():
    assert pixels.shown(Image.new("RGB", (90, 30))).shape == (300, 900, 3)
    assert pixels.shown(Image.new("RGB", (1200, 1000))).shape == (1000, 1200, 3)
    assert pixels.shown(Image.new("RGB", (2000, 4000))).shape == (1600, 800, 3)
    assert pixels.shown(Image.new("RGB", (1, 4000))).shape == (1600, 1, 3)


@pytest.mark.parametrize(
    "text", ["short", "one two three four five six seven", "x" * 200, "a $5 _b_ {c}", ""]
)
@pytest.mark.parametrize("lines", [1, 3])
def test_folded_text_fits_and_loses_nothing_unsaid(text, lines):
    style = font(10)
    folded = fold(text, 1.2, style, lines)
    assert len(folded) <= lines
    assert all(text_width(line, style) <= 1.2 for line in folded)
    complete = "".join(folded).replace(" ", "") == text.replace(" ", "")
    assert complete or folded[-1].endswith("…")


@pytest.mark.parametrize(
    "shapes", [["square"], ["wide"], ["tall"], ["single"], ["wide", "tall"], ["single", "square"]],
    ids="+".join,
)  # fmt: skip
def test_every_shape_makes_a_picture(shapes, tmp_path):
    path = tmp_path / "out.png"
    picture.draw(explanation(*shapes), path)
    image = Image.open(path).convert("RGB")
    assert image.width == 2100
    assert 0.3 < image.height / image.width < 1.6
    # Every side has a white margin: nothing runs out of the picture.
    shown = np.asarray(image)
    for edge in (shown[:, :40], shown[:, -40:], shown[:40], shown[-40:]):
        assert (edge == 255).all()
    assert (shown != 255).any(axis=2).mean() > 0.05


@pytest.mark.parametrize("frames", [2, 8, 11, 32])
def test_a_video_is_a_strip_of_its_frames(frames, tmp_path):
    explained = explanation("square", frames=frames)
    clip = explained.images[1]
    layout, (width, height) = clip.layout, clip.pixels.size
    assert layout.columns * layout.rows >= frames > layout.columns * (layout.rows - 1)
    assert width / layout.columns == 1.5 * height / layout.rows
    (tokens,) = (view.tokens for view in layout.views)
    assert sorted(tokens[tokens >= 0]) == list(range(6 * frames))
    for number in range(frames):
        down, across = divmod(number, layout.columns)
        frame = tokens[2 * down : 2 * down + 2, 3 * across : 3 * across + 3]
        assert frame.flatten().tolist() == list(range(6 * number, 6 * number + 6))
    blank = pixels.blanked(np.zeros((height, width, 3), np.uint8), tokens)
    assert (blank == 255).mean() == pytest.approx(1 - frames / (layout.columns * layout.rows))
    picture.draw(explained, tmp_path / "out.svg")
    # Of the first frame two tokens are kept and of the second one.
    assert picture._labels(clip, explained.pruned[0].kept[1])[:2] == ["2", "1"]
    assert picture._labels(explained.images[0], explained.pruned[0].kept[0]) == []
    assert (tmp_path / "out.svg").read_text().count(">0<") >= 2 * (frames - 2)
    assert explained.pruned[0].open_tiles(explained.images)[1] == [0, 1]


def test_a_videos_moments_are_spread_over_its_frames():
    shown = moments(np.arange(12)[:, None, None, None].repeat(3, -1).astype(np.uint8), 4)
    assert [frame.getpixel((0, 0))[0] for frame in shown] == [1, 4, 7, 10]


def test_a_videos_tokens_in_numbers():
    image, clip = explanation("single", frames=2).as_json()["images"]
    assert (image["frames"], clip["frames"], clip["tiles"], clip["visual_tokens"]) == (None, 2, 2, 13)
    assert (clip["width"], clip["height"], clip["tokens_per_tile"]) == (90, 60, 6)
    assert clip["boxes"][4] == clip["boxes"][10] == [30, 30, 60, 60]
    assert clip["boxes"][12] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"importance": 1.0},
        {"question": "Why? " * 200, "large_answer": Said("because " * 200, 32, False)},
        {"pruned": []},
        {"exit_threshold": 0.5, "decision": "exit"},
        {"exit_threshold": 0.9, "decision": "prune", "reason": Reason.LOW_SCORE},
        {"exit_threshold": 1.0, "decision": "prune", "reason": Reason.LOW_CONFIDENCE},
        {
            "exit_threshold": 0.5, "decision": "prune", "reason": Reason.UNFINISHED,
            "consistency": None, "score": None,
        },
        {
            "exit_threshold": 0.5, "decision": "prune", "reason": Reason.SAMPLING,
            "consistency": None, "score": None,
        },
    ],
    ids=["even", "long", "nothing pruned", "exit", "low score", "low confidence", "unfinished", "sampling"],
)  # fmt: skip
def test_every_outcome_makes_a_picture(changes, tmp_path):
    picture.draw(explanation("square", **changes), tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 20_000


def test_svg_has_its_text_as_text(tmp_path):
    """So that what is said can be checked, and found."""
    decided = {"exit_threshold": 0.9, "decision": "prune", "reason": Reason.LOW_SCORE}
    picture.draw(explanation("square", **decided), tmp_path / "out.svg")
    text = (tmp_path / "out.svg").read_text()
    for words in (
        "What costs $5?", "large guided by small", "80 visual tokens", "35 % kept", "2 % kept",
        "27 of 80, 5 of 5 tiles", "“forty-two”", "“42”", "“ …”", "Decision: prune",
        "exit threshold 0.90", "0.80", "0.40", "0.60", "thumbnail",
    ):  # fmt: skip
        assert f">{words}<" in text, words
