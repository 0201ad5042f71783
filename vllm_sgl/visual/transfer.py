"""Importance carried from the visual tokens of one layout of an image to those of another, by area.

A small model that cuts images otherwise than the large one sees the same image in other boxes. For a token s
of the small model with importance I(s), of which a token t of the large model shows a part:

    mass(t)       = sum over s of  I(s) * area(s and t) / area(s)
    importance(t) = mass(t) * a / size(t)

Mass is spread evenly over what a token shows of the image and collected by overlap, so that it is conserved
where the large model's tokens cover the image once. Tokens are ranked by density, in units of the small
model's own tokens (a: the mean size of its finest view's; sizes count what lies in the padding, too): a token
inside one of the small model's has that one's importance, and between equal layouts nothing changes.

Which tokens of the small model count for t depends on how often either model shows the image (a grid, a
thumbnail or base image). Where both show it equally often, like goes to like: the thumbnail's importance to
the thumbnail, the grid's to the grid. Otherwise all views of the small model add up, and every view of the
large model gets all of it.

A token that shows nothing of the image has neither importance to give nor to get, with one exception: a
separator is as important as the best token of the row that it ends, so that it is kept where its row keeps
anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import torch

from vllm_sgl.config import Views
from vllm_sgl.visual.layout import Layout, LayoutOf, Spans, View

#: Values as they lie in a view: float64 [down, across].
Values = npt.NDArray[np.float64]
#: What is carried for an image of this width and height, in pixels.
TransferOf = Callable[[int, int], "Transfer"]

#: Sizes of images repeat: transfers that are kept, a few 100 KB each for the largest images.
_SIZES = 64


@dataclass(frozen=True)
class Transfer:
    """Between two layouts of one image.

    source: the small model's. target: the large model's.
    """

    source: Layout
    target: Layout

    def masses(self, importance: torch.Tensor) -> list[Values]:
        """The mass of each view of the target, before ranking.

        Args:
            importance: float [visual tokens of the source].

        Returns:
            per view of the target float64 [down, across]; its sum is that of the source's views that go there
            where the view covers the image once.
        """
        self._check(importance)
        given = importance.double().numpy()
        return [
            sum((down @ given[view.tokens] @ across.T for view, down, across in parts), np.zeros(shape))
            for shape, parts in self._overlaps
        ]

    def importance(self, importance: torch.Tensor, views: Views = "auto") -> torch.Tensor:
        """How important each visual token of the target is.

        Args:
            importance: float [visual tokens of the source].
            views: how the target's views rank against each other. "joint": by density, as they come.
                "separate": every view keeps the same share of its tokens; a token's value is that of the
                finest view's token of the same rank. "finest": no token of another view before all of the
                finest one that have any importance. "auto": "joint" where both models show the image equally
                often, so that the guide's own attention ranks the views, and "finest" otherwise, which is
                measured to be better there (``benchmarks/results/crossed-tilings.json``).

        Returns:
            float32 [visual tokens of the target]; 0 where nothing was carried.

        Raises:
            ValueError: for another number of importances than the source has visual tokens.
        """
        found = [mass * factors for mass, factors in zip(self.masses(importance), self._factors, strict=True)]
        if views == "auto":
            views = "joint" if self._alike else "finest"
        if found and views != "joint":
            rank = {"separate": _as_ranked, "finest": _below}[views]
            found[1:] = [rank(values, found[0]) for values in found[1:]]
        out = np.zeros(self.target.visual_tokens)
        for view, values in zip(_shown(self.target), found, strict=True):
            out[view.tokens] = values
        for view, values in zip(_shown(self.target), found, strict=True):
            after = view.tokens[:, -1] + 1
            ends = np.isin(after, self._separators)
            out[after[ends]] = values.max(axis=1)[ends]
        return torch.from_numpy(out).float()

    def _check(self, importance: torch.Tensor) -> None:
        if importance.shape != (self.source.visual_tokens,):
            raise ValueError(
                f"expected the importance of {self.source.visual_tokens} visual tokens, those of the small "
                f"model's layout of this image; received {list(importance.shape)}"
            )

    @cached_property
    def _alike(self) -> bool:
        """Whether both models show the image equally often."""
        return len(_shown(self.source)) == len(_shown(self.target))

    @cached_property
    def _sources(self) -> list[list[View]]:
        """For each view of the target, the source's views that go there."""
        source = _shown(self.source)
        return [[source[number]] if self._alike else source for number in range(len(_shown(self.target)))]

    @cached_property
    def _overlaps(self) -> list[tuple[tuple[int, ...], list[tuple[View, Values, Values]]]]:
        """For each view of the target its shape, and for each view that goes there the shares of its rows
        [target's rows, source's rows] and of its columns. Boxes are rows by columns, so that a share of an
        area is the product of two."""
        return [
            (
                view.tokens.shape,
                [
                    (one, _shares(view.spans[0], one.spans[0]), _shares(view.spans[1], one.spans[1]))
                    for one in sources
                ],
            )
            for view, sources in zip(_shown(self.target), self._sources, strict=True)
        ]

    @cached_property
    def _factors(self) -> list[Values]:
        """From mass to importance, for each view of the target [down, across]."""
        found = []
        for view, sources in zip(_shown(self.target), self._sources, strict=True):
            unit = _sizes(sources[0]).mean() if sources else 0.0
            found.append(unit / _sizes(view))
        return found

    @cached_property
    def _separators(self) -> npt.NDArray[np.int64]:
        """Visual tokens of the target that are in no view."""
        every = np.concatenate([view.tokens.flatten() for view in _shown(self.target)] or [np.empty(0, int)])
        return np.setdiff1d(np.arange(self.target.visual_tokens), every)


def transfers(source: LayoutOf, target: LayoutOf) -> TransferOf:
    """Transfers between two models' layouts, kept for the sizes that were asked for lately."""

    @lru_cache(maxsize=_SIZES)
    def transfer(width: int, height: int) -> Transfer:
        return Transfer(source(width, height), target(width, height))

    return transfer


def _shown(layout: Layout) -> list[View]:
    """The views that have tokens: of a very thin image nothing but separators may be left."""
    return [view for view in layout.views if view.tokens.size]


def _sizes(view: View) -> Values:
    """Sizes of its tokens [down, across], padding included, in shares of the image."""
    down, across = (spans[:, 1] - spans[:, 0] for spans in view.spans)
    return down[:, None] * across[None]


def _shares(target: Spans, source: Spans) -> Values:
    """For each span of the source, the share of its visible part that lies in each span of the target:
    float64 [target, source]."""
    source = source.clip(0, 1)
    begin = np.maximum(target[:, None, 0], source[None, :, 0])
    end = np.minimum(target[:, None, 1], source[None, :, 1])
    lengths = np.broadcast_to(source[:, 1] - source[:, 0], begin.shape)
    shares: Values = np.zeros(begin.shape)
    np.divide((end - begin).clip(0), lengths, out=shares, where=lengths > 0)
    return shares


def _as_ranked(values: Values, finest: Values) -> Values:
    """Each value replaced by that of the finest view which as large a share of its view is above."""
    order = np.argsort(-values.ravel(), kind="stable")
    best = -np.sort(-finest.ravel())
    out = np.empty(values.size)
    out[order] = best[((np.arange(values.size) + 0.5) * finest.size / values.size).astype(int)]
    return out.reshape(values.shape)


def _below(values: Values, finest: Values) -> Values:
    """The values, made so small that all of them are below those of the finest view."""
    some = finest[finest > 0]
    if not some.size or not values.any():
        return values
    scaled: Values = values * (some.min() / values.max() / 2)
    return scaled
