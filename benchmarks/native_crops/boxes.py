"""Which boxes of an image's visual tokens to crop to, by importance.

Two rules, both for a budget of visual tokens over all images of a request. Every image keeps a box of at
least one token, because an engine takes no empty placeholder.

richest    the boxes that hold the most importance of all that fit. Exact.
bounding   the bounding box of a request's best tokens, as many as a quarter of the budget; then rows and
           columns at its sides go, the poorest first, or come, the richest first, as far as the budget goes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: Importance of an image's visual tokens, not negative: float64 [down, across].
Values = npt.NDArray[np.float64]
#: From the importance of each image and the budget to a box of each.
Rule = Callable[[Sequence[Values], int], "list[Box]"]

#: Of the budget, in tokens whose bounding box is where ``bounding`` begins.
_BEGIN = 0.25


class Box(NamedTuple):
    """Rows top to bottom and columns left to right of visual tokens; bottom and right lie outside."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def rows(self) -> int:
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        return self.right - self.left

    @property
    def area(self) -> int:
        return self.rows * self.columns

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def times(self, factor: int) -> "Box":
        """The same part of an image that has as many times the tokens along each side."""
        return Box(*(edge * factor for edge in self))

    def mask(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Which visual tokens lie in it: bool [down, across]."""
        inside = np.zeros(shape, dtype=bool)
        inside[self.slices] = True
        return inside


def whole(shape: tuple[int, ...]) -> Box:
    """All of an image."""
    return Box(0, 0, shape[0], shape[1])


def richest(masses: Sequence[Values], budget: int) -> list[Box]:
    """The boxes with the most importance in sum, one per image, with at most so many tokens together.

    Raises:
        ValueError: for a budget below one token per image.
    """
    _check(masses, budget)
    best: dict[int, tuple[float, list[Box]]] = {0: (0.0, [])}  # by tokens that are spent
    for number, values in enumerate(masses):
        left = budget - (len(masses) - number - 1)
        found: dict[int, tuple[float, list[Box]]] = {}
        candidates = [
            (one.area, float(values[one.slices].sum()), one) for one in _best_of_sizes(values, left)
        ]
        for spent, (mass, boxes) in best.items():
            for area, more, box in candidates:
                total = spent + area
                if total <= left and (total not in found or mass + more > found[total][0]):
                    found[total] = (mass + more, [*boxes, box])
        best = found
    return max(best.values(), key=lambda entry: entry[0])[1]


def _best_of_sizes(values: Values, most: int) -> Iterator[Box]:
    """For every height and width of at most so many tokens the box with the most importance."""
    rows, columns = values.shape
    sums = np.zeros((rows + 1, columns + 1))
    sums[1:, 1:] = values.cumsum(0).cumsum(1)
    for high in range(1, rows + 1):
        for wide in range(1, min(columns, most // high) + 1):
            down = sums[high:] - sums[:-high]
            inside = down[:, wide:] - down[:, :-wide]
            top, left = np.unravel_index(int(inside.argmax()), inside.shape)
            yield Box(int(top), int(left), int(top) + high, int(left) + wide)


def bounding(masses: Sequence[Values], budget: int) -> list[Box]:
    """The bounding boxes of the best tokens, shrunk and grown to at most so many tokens together.

    Raises:
        ValueError: for a budget below one token per image.
    """
    _check(masses, budget)
    boxes = _around_best(masses, max(1, int(_BEGIN * budget)))
    while sum(box.area for box in boxes) > budget:
        boxes = min(_smaller(boxes, masses))[1]
    while larger := [step for step in _larger(boxes, masses) if sum(box.area for box in step[1]) <= budget]:
        boxes = max(larger)[1]
    return boxes


def _around_best(masses: Sequence[Values], count: int) -> list[Box]:
    """Around the best tokens of all images, and around an image's own best where none of them is its."""
    limit = np.sort(np.concatenate([values.ravel() for values in masses]))[-count]
    boxes = []
    for values in masses:
        rows, columns = np.nonzero(values >= min(limit, values.max()))
        boxes.append(Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1))
    return boxes


#: A side's row or column: its mean importance, and the boxes without or with it.
Step = tuple[float, list[Box]]


def _smaller(boxes: Sequence[Box], masses: Sequence[Values]) -> Iterator[Step]:
    for number, box in enumerate(boxes):
        top, left, bottom, right = box
        if box.rows > 1:
            yield _step(boxes, masses, number, Box(top, left, top + 1, right), box._replace(top=top + 1))
            last = Box(bottom - 1, left, bottom, right)
            yield _step(boxes, masses, number, last, box._replace(bottom=bottom - 1))
        if box.columns > 1:
            yield _step(boxes, masses, number, Box(top, left, bottom, left + 1), box._replace(left=left + 1))
            last = Box(top, right - 1, bottom, right)
            yield _step(boxes, masses, number, last, box._replace(right=right - 1))


def _larger(boxes: Sequence[Box], masses: Sequence[Values]) -> Iterator[Step]:
    for number, (box, values) in enumerate(zip(boxes, masses, strict=True)):
        top, left, bottom, right = box
        rows, columns = values.shape
        if top > 0:
            yield _step(boxes, masses, number, Box(top - 1, left, top, right), box._replace(top=top - 1))
        if bottom < rows:
            new = Box(bottom, left, bottom + 1, right)
            yield _step(boxes, masses, number, new, box._replace(bottom=bottom + 1))
        if left > 0:
            yield _step(boxes, masses, number, Box(top, left - 1, bottom, left), box._replace(left=left - 1))
        if right < columns:
            new = Box(top, right, bottom, right + 1)
            yield _step(boxes, masses, number, new, box._replace(right=right + 1))


def _step(boxes: Sequence[Box], masses: Sequence[Values], number: int, strip: Box, instead: Box) -> Step:
    changed = [instead if other == number else box for other, box in enumerate(boxes)]
    return float(masses[number][strip.slices].mean()), changed


def _check(masses: Sequence[Values], budget: int) -> None:
    if budget < len(masses):
        raise ValueError(
            f"expected a budget of at least one token per image, {len(masses)}; received {budget}"
        )


RULES: dict[str, Rule] = {"richest": richest, "bounding": bounding}
