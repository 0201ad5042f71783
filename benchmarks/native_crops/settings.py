"""What is measured: ways to show a part of an image, and how much of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from .asked import Asked, Shown
from .boxes import RULES, Box, whole

#: all: the image. pruned: all of it encoded, the best tokens kept. crop: the richest box, see ``boxes.py``;
#: with fewer tokens kept than encoded it is pruned, too. bounding: by the other rule. own positions: the
#: richest box as if it were the image. doubled, fractional: a box drawn at twice the resolution, so of a
#: quarter of the budget's area; see ``Asked.doubled``. smaller: the whole image with fewer pixels, no guide.
Way = Literal["all", "pruned", "crop", "bounding", "own positions", "doubled", "fractional", "smaller"]

#: Shares of an image's visual tokens.
SHARES = (0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 0.64, 0.8)
#: What a crop is pruned to, of its own tokens.
PARTS = (0.5, 0.25)


@dataclass(frozen=True)
class Setting:
    """ranking: whose importance; None where nobody is asked. encoded, kept: budgets, in shares of all of the
    request's visual tokens."""

    ranking: str | None
    way: Way
    encoded: float
    kept: float

    @property
    def curve(self) -> tuple[str | None, str, float | None]:
        """Settings that differ in nothing but how much is shown; the last is the part of a crop's tokens that
        is kept."""
        return self.ranking, self.way, self.kept / self.encoded if self.way == "crop" else None


ALL = Setting(None, "all", 1, 1)


def alone() -> list[Setting]:
    """Without a guide."""
    return [ALL, *(Setting(None, "smaller", share, share) for share in (0.09, 0.18, 0.25, 0.35, 0.64))]


def guided(ranking: str, everything: bool) -> list[Setting]:
    """By one guide. everything: also the ways that are there to be compared with crops."""
    found = [Setting(ranking, "pruned", 1, share) for share in SHARES]
    found += [Setting(ranking, "crop", share, share) for share in SHARES]
    found += [Setting(ranking, "crop", share, part * share) for part in PARTS for share in (*SHARES[2:], 1)]
    if everything:
        found += [Setting(ranking, "bounding", share, share) for share in SHARES[::2]]
        found += [Setting(ranking, "own positions", share, share) for share in SHARES[::2]]
        for way in ("doubled", "fractional"):
            found += [Setting(ranking, way, share, share) for share in (0.18, 0.35, 0.64, 1)]
    return found


def show(asked: Asked, setting: Setting, importance: Sequence[torch.Tensor]) -> Shown:
    """What the model gets under a setting.

    Args:
        importance: per image float [visual tokens], not negative. Nobody looks at it without a ranking.
    """
    if setting.way == "all":
        return asked.all()
    if setting.way == "smaller":
        return asked.smaller(setting.encoded)
    if setting.way in ("doubled", "fractional"):
        boxes = _boxes(asked, setting.encoded / 4, importance)
        return asked.doubled(boxes, fractional=setting.way == "fractional")
    if setting.encoded == 1:
        return asked.pruned([whole(shape) for shape in asked.shapes], importance, setting.kept)
    boxes = _boxes(asked, setting.encoded, importance, "bounding" if setting.way == "bounding" else "richest")
    if setting.way == "own positions":
        return asked.own_positions(boxes)
    if setting.kept < setting.encoded:
        return asked.pruned(boxes, importance, setting.kept)
    return asked.cropped(boxes)


def _boxes(
    asked: Asked, share: float, importance: Sequence[torch.Tensor], rule: str = "richest"
) -> list[Box]:
    return RULES[rule](asked.values(importance), asked.budget(share))
