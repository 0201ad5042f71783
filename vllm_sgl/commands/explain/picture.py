"""The picture. matplotlib is needed: ``pip install 'vllm-sgl[plot]'``.

A question above a grid of cells: every visual token, their importance, what is kept at each retention, the
decision. All places and sizes are inches from the top left corner.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patheffects import withStroke

from vllm_sgl.commands.explain import pixels
from vllm_sgl.commands.explain.clip import SeenVideo
from vllm_sgl.commands.explain.explanation import Explanation, Said, SeenImage
from vllm_sgl.commands.explain.sheet import GREY, LINE, Sheet, fold, font, line_height, text_width
from vllm_sgl.core import Reason
from vllm_sgl.visual.layout import Layout

SUFFIXES = (".png", ".pdf", ".svg")

_WIDTH, _MARGIN = 10.5, 0.35
_GAP = 0.42  # between cells
_SPLIT = 0.09  # between tiles and thumbnail, and between images
_THUMBNAIL = 0.26  # width, as a share of its cell's
_HEAD = 0.48  # heading and note of a cell, above its images
_FOOT = 0.34  # who answers, below them
_DECISION = 1.9  # height of the last cell, at least
_SHAPE = 0.7  # height over width that the picture should come near to

_TITLE, _HEADING, _ANSWER = font(15, "bold"), font(10.5, "bold"), font(11.5)
_NOTE, _TINY = font(8.5), font(7)
_ANSWER_LINES = 3

_COLOURS = matplotlib.colormaps["inferno"]
_BAR, _MARK = "#0072B2", "#D55E00"
#: What a reason for not exiting means; None is an exit.
_OUTCOMES = {
    None: "The small model's answer is returned.",
    Reason.UNFINISHED: "The large model answers: the small one's answer was cut off.",
    Reason.LOW_CONFIDENCE: "The large model answers: even full consistency would not reach the threshold.",
    Reason.LOW_SCORE: "The large model answers: the score is below the threshold.",
}
#: Any other reason: the request or the server rules exits out.
_NO_EXIT = "The large model answers: no exit is possible ({reason})."


@dataclass(frozen=True)
class _View:
    """A cell with images.

    who: gives the answer.
    values: one array [visual tokens] per image.
    paint: from an image's pixels and its values as they lie in it to the pixels to show.
    labels: per image, what is written on each of its tiles; nothing on those that it does not reach to.
    """

    heading: str
    note: str
    who: str
    answer: Said
    values: Sequence[np.ndarray]
    paint: Callable[[np.ndarray, np.ndarray], np.ndarray]
    labels: Sequence[Sequence[str]] = ()


def draw(explained: Explanation, path: Path) -> None:
    """Write the picture; the path's suffix says in which format."""
    everything = np.concatenate([image.importance for image in explained.images])
    mean = float(everything.mean()) or 1.0
    norm = LogNorm(*pixels.scale(everything / mean), clip=True)
    views = _views(explained, mean, norm)
    plan = _plan(explained, views)

    width = _WIDTH - 2 * _MARGIN
    title, models = fold(explained.question, width, _TITLE, 3), fold(_models(explained), width, _NOTE, 1)
    top = _MARGIN + len(title) * line_height(_TITLE) + line_height(_NOTE) + 0.35
    sheet = Sheet(_WIDTH, top + plan.total + _MARGIN)
    sheet.text(_MARGIN, sheet.text(_MARGIN, _MARGIN, title, _TITLE) + 0.05, models, _NOTE, GREY)
    places = [
        (_MARGIN + column * (plan.width + _GAP), top + row * (plan.height + _GAP))
        for row in range(plan.rows)
        for column in range(plan.columns)
    ]
    images = [(image.layout, pixels.shown(image.pixels)) for image in explained.images]
    for view, place in zip(views, places, strict=False):
        _draw_view(sheet, *place, plan, images, view)
    x, y = places[1]
    _draw_key(sheet, x, y + line_height(_HEADING), norm)
    _draw_decision(sheet, *places[len(views)], plan.width, explained)
    sheet.save(path)


def _views(explained: Explanation, mean: float, norm: LogNorm) -> list[_View]:
    total = explained.visual_tokens
    importance = [image.importance / mean for image in explained.images]
    heat = partial(pixels.heat, colour=lambda values: _COLOURS(norm(values)))
    views = [
        _View(
            "Every token", f"{total:,} visual tokens", "large model", explained.large_answer, importance,
            lambda shown, _: shown,
        ),
        _View("Importance", "", "small model", explained.small_answer, importance, heat),
    ]  # fmt: skip
    for pruned in explained.pruned:
        heading, note = f"{100 * pruned.retention:.3g} % kept", f"{pruned.kept_tokens:,} of {total:,}"
        opened = pruned.open_tiles(explained.images)
        tiles = sum(image.item.tiles for image in explained.images)
        if tiles > len(explained.images):
            note += f", {sum(map(len, opened))} of {tiles} tiles"
        fates = [_fates(*one) for one in zip(explained.images, pruned.kept, opened, strict=True)]
        labels = [_labels(*one) for one in zip(explained.images, pruned.kept, strict=True)]
        views.append(_View(heading, note, "large model", pruned.answer, fates, pixels.spotlight, labels))
    return views


def _labels(image: SeenImage | SeenVideo, kept: np.ndarray) -> list[str]:
    """How many visual tokens of each of a video's moments are kept."""
    if isinstance(image, SeenImage):
        return []
    counts = np.bincount(kept // image.item.per_tile, minlength=image.item.tiles)
    return [str(count) for count in counts[: image.item.tiles]]


def _fates(image: SeenImage | SeenVideo, kept: np.ndarray, opened: Sequence[int]) -> np.ndarray:
    """What becomes of each visual token, in the terms of :func:`pixels.spotlight`."""
    numbers = np.arange(image.layout.visual_tokens)
    fates = np.where(np.isin(numbers // image.item.per_tile, opened), pixels.DROPPED, pixels.CLOSED)
    fates[kept] = pixels.KEPT
    return fates


def _models(explained: Explanation) -> str:
    return f"{PurePath(explained.large).name} guided by {PurePath(explained.small).name}"


@dataclass(frozen=True)
class _Plan:
    """How the cells lie.

    width, height: of a cell. boxes: per image, width and height of its tiles.
    """

    columns: int
    rows: int
    width: float
    height: float
    boxes: Sequence[tuple[float, float]]

    @property
    def total(self) -> float:
        """Height of all cells; the decision is in the last row."""
        return (self.rows - 1) * (self.height + _GAP) + max(self.height, _DECISION)

    @property
    def strain(self) -> float:
        """How far the whole is from the shape that it should have."""
        return abs(math.log(self.total / _WIDTH / _SHAPE))


def _plan(explained: Explanation, views: Sequence[_View]) -> _Plan:
    """The best of all numbers of columns."""
    cells = len(views) + 1
    plans = (_plan_columns(columns, cells, explained, views) for columns in range(1, cells + 1))
    return min(plans, key=lambda plan: plan.strain + 0.2 * (plan.rows * plan.columns - cells))


def _plan_columns(columns: int, cells: int, explained: Explanation, views: Sequence[_View]) -> _Plan:
    width = (_WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) / columns
    beside = any(len(image.layout.views) > 1 for image in explained.images)
    room = width * (1 - _THUMBNAIL) - _SPLIT if beside else width
    boxes = []
    for image in explained.images:
        aspect = image.pixels.width / image.pixels.height
        # Among others an image gets no more than a square.
        across = min(room, room * aspect) if len(explained.images) > 1 else room
        boxes.append((across, across / aspect))
    images = sum(height for _, height in boxes) + _SPLIT * (len(boxes) - 1)
    lines = max(len(_folded(view.answer, width)) for view in views)
    height = _HEAD + images + _FOOT + lines * line_height(_ANSWER)
    return _Plan(columns, math.ceil(cells / columns), width, height, boxes)


def _folded(answer: Said, width: float) -> list[str]:
    return fold(f"“{answer.text.strip()}{'' if answer.finished else ' …'}”", width, _ANSWER, _ANSWER_LINES)


def _draw_view(
    sheet: Sheet, x: float, y: float, plan: _Plan, images: Sequence[tuple[Layout, np.ndarray]], view: _View
) -> None:
    below = sheet.text(x, y, [view.heading], _HEADING)
    sheet.text(x, below, [view.note], _NOTE, GREY)
    y += _HEAD
    labels = view.labels or [()] * len(images)
    for (layout, shown), values, (width, height), on in zip(
        images, view.values, plan.boxes, labels, strict=True
    ):
        whole, *again = layout.maps(values)
        painted = pixels.blanked(view.paint(shown, whole), layout.views[0].tokens)
        axes = sheet.image(x, y, width, height, painted)
        _draw_borders(axes, layout)
        _draw_labels(axes, layout, on)
        for thumbnail in again:
            across = plan.width * _THUMBNAIL * width / max(box[0] for box in plan.boxes)
            left, top = x + width + _SPLIT, y + height - across * height / width
            sheet.text(left, top - 1.5 * line_height(_TINY), ["thumbnail"], _TINY, GREY)
            sheet.image(left, top, across, y + height - top, view.paint(shown, thumbnail))
        y += height + _SPLIT
    below = sheet.text(x, y - _SPLIT + 0.08, [view.who], _NOTE, GREY)
    sheet.text(x, below, _folded(view.answer, plan.width), _ANSWER)


def _draw_borders(axes: Axes, layout: Layout) -> None:
    """Lines between tiles, seen on bright and dark."""
    for count, line in ((layout.columns, axes.axvline), (layout.rows, axes.axhline)):
        for number in range(1, count):
            line(
                number / count, color="white", linewidth=0.9,
                path_effects=[withStroke(linewidth=1.8, foreground="#00000066")],
            )  # fmt: skip


def _draw_labels(axes: Axes, layout: Layout, labels: Sequence[str]) -> None:
    """In the tiles' upper left corners."""
    for number, label in enumerate(labels):
        down, across = divmod(number, layout.columns)
        axes.text(
            (across + 0.05) / layout.columns, (down + 0.05) / layout.rows, label, fontproperties=_TINY,
            color="white", verticalalignment="top", parse_math=False,
            bbox={"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 1.2},
        )  # fmt: skip


def _draw_key(sheet: Sheet, x: float, y: float, norm: LogNorm) -> None:
    """The colours of importance, between the values of their ends."""
    low, high = f"{norm.vmin:.2g}×", f"{norm.vmax:.2g}× mean"
    sheet.text(x, y, [low], _NOTE, GREY)
    left = x + text_width(low, _NOTE) + 0.06
    ramp = _COLOURS(np.linspace(0, 1, 256))[None, :, :3]
    sheet.image(left, y + 0.035, 0.55, 0.09, ramp)
    sheet.text(left + 0.61, y, [high], _NOTE, GREY)


def _draw_decision(sheet: Sheet, x: float, y: float, width: float, explained: Explanation) -> None:
    decision, threshold = explained.decision, explained.exit_threshold
    below = sheet.text(x, y, [f"Decision: {decision}" if decision else "Exit score"], _HEADING)
    note = "no threshold set" if threshold is None else f"exit threshold {threshold:.2f}"
    sheet.text(x, below, [note], _NOTE, GREY)
    y += _HEAD
    for name in ("confidence", "consistency", "score"):
        value = getattr(explained, name)
        sheet.text(x + width, y, ["–" if value is None else f"{value:.2f}"], _NOTE, align="right")
        y = sheet.text(x, y, [name], _NOTE) + 0.04
        axes = sheet.axes(x, y, width, 0.08)
        axes.axvspan(0, 1, color=LINE, linewidth=0)
        axes.axvspan(0, value or 0, color=_BAR, linewidth=0)
        if name == "score" and threshold is not None:
            axes.plot([threshold, threshold], [0, 1.8], color=_MARK, linewidth=2, clip_on=False)
        y += 0.18
    if decision is not None:
        meaning = _OUTCOMES.get(explained.reason, _NO_EXIT.format(reason=explained.reason))
        sheet.text(x, y, fold(meaning, width, _NOTE, 5), _NOTE, GREY)
