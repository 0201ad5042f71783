"""One question about whole images, asked with parts of them encoded."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.crossed.readers import Reader
from tools.reference import select
from tools.sign_reading import Example
from tools.sign_reading.native.images import patches
from tools.sign_reading.scene import CELL
from tools.sign_reading.training.decoder import answer_logits, exact
from tools.sign_reading.training.prompts import Batch
from vllm_sgl.visual.layout import grid

from .boxes import Box, Values, whole


class Shown(NamedTuple):
    """What the decoder gets. encoded: per image how many visual tokens the encoder made. batch: prompt and
    right answer. visual: float [visual tokens, hidden]."""

    encoded: list[int]
    batch: Batch
    visual: torch.Tensor

    @property
    def kept(self) -> int:
        return len(self.visual)


class Asked:
    """reader: of Qwen2-VL's shape. pictures: none is resized by its processor."""

    def __init__(self, reader: Reader, pictures: Sequence[Image.Image], example: Example) -> None:
        self.reader, self.pictures, self.example = reader, list(pictures), example
        self.layouts = [reader.layout(picture) for picture in pictures]
        self.shapes = [layout.views[0].tokens.shape for layout in self.layouts]
        self.batch = reader.batch(self.layouts, example.question)
        self._features: dict[tuple[int, Box, int], torch.Tensor] = {}

    @property
    def tokens(self) -> list[int]:
        """Visual tokens of each image."""
        return [layout.visual_tokens for layout in self.layouts]

    def budget(self, share: float) -> int:
        """So many tokens of all images', and one of each at least."""
        return max(len(self.shapes), int(share * sum(self.tokens)))

    def values(self, importance: Sequence[torch.Tensor]) -> list[Values]:
        """Importance as it lies in the images."""
        parts = zip(importance, self.shapes, strict=True)
        return [values.double().numpy().reshape(shape) for values, shape in parts]

    def features(self, boxes: Sequence[Box], scale: int = 1) -> torch.Tensor:
        """Crops through the vision encoder, drawn at as many times the resolution: float [tokens, hidden]."""
        for number, box in enumerate(boxes):
            if (number, box, scale) not in self._features:
                edges = (box.left * CELL, box.top * CELL, box.right * CELL, box.bottom * CELL)
                crop = self.pictures[number].crop(edges)
                made = self.encode(_resized(crop, box.times(scale)))
                self._features[number, box, scale] = made
        return torch.cat([self._features[number, box, scale] for number, box in enumerate(boxes)])

    def encode(self, picture: Image.Image) -> torch.Tensor:
        pixels = patches(np.array(picture)[None])
        size = torch.tensor([1, *(2 * side // CELL for side in reversed(picture.size))])
        return self.reader.reference.visual_features({"pixel_values": pixels, "image_grid_thw": size})

    def all(self) -> Shown:
        return self.cropped([whole(shape) for shape in self.shapes])

    def cropped(self, boxes: Sequence[Box], keep: Sequence[torch.Tensor] | None = None) -> Shown:
        """The crops at the image's resolution; their tokens, or those of `keep` among them, at their places.

        Args:
            keep: per image indices of the visual tokens to keep; None keeps all that are encoded.
        """
        inside = torch.cat([_mask(box, shape) for box, shape in zip(boxes, self.shapes, strict=True)])
        kept = inside
        if keep is not None:
            counts = zip(self.tokens, keep, strict=True)
            wanted = torch.cat([torch.zeros(n).bool().index_fill(0, index, True) for n, index in counts])
            kept = inside & wanted
        visual = self.features(boxes)[kept[inside]]
        return Shown([box.area for box in boxes], self.reader.drop(self.batch, kept[None]), visual)

    def pruned(self, boxes: Sequence[Box], importance: Sequence[torch.Tensor], share: float) -> Shown:
        """The crops, and of their tokens the best, as many as this share of all the images' tokens."""
        apart = zip(importance, boxes, self.shapes, strict=True)
        inside = [values.masked_fill(~_mask(box, shape), -torch.inf) for values, box, shape in apart]
        return self.cropped(boxes, select(inside, share, self.reader.reference.least))

    def own_positions(self, boxes: Sequence[Box]) -> Shown:
        """The crops as if they were the images: what a server does that knows nothing of crops."""
        batch = self.reader.batch([grid(box.columns, box.rows) for box in boxes], self.example.question)
        return Shown([box.area for box in boxes], batch, self.features(boxes))

    def doubled(self, boxes: Sequence[Box], fractional: bool) -> Shown:
        """The crops drawn at twice the resolution, so four tokens where there was one.

        Args:
            fractional: tokens stand a quarter of a position beside the one that they take the place of, and
                all else stands where it stood. Otherwise everything stands where it would if the whole image
                were drawn at twice the resolution.
        """
        twice = [box.times(2) for box in boxes]
        shapes = [(2 * rows, 2 * columns) for rows, columns in self.shapes]
        kept = torch.cat([_mask(box, shape) for box, shape in zip(twice, shapes, strict=True)])
        batch = self.reader.drop(self._twice, kept[None])
        if fractional:
            positions = batch.positions.float()
            positions[..., ~batch.visual[0]] = self.batch.positions[..., ~self.batch.visual[0]].float()
            positions[:, 0, batch.visual[0]] = torch.cat(self._between(), dim=1)[:, kept]
            batch = replace(batch, positions=positions)
        return Shown([box.area for box in twice], batch, self.features(boxes, 2))

    @cached_property
    def _twice(self) -> Batch:
        layouts = [grid(2 * columns, 2 * rows) for rows, columns in self.shapes]
        return self.reader.batch(layouts, self.example.question)

    def _between(self) -> list[torch.Tensor]:
        """Per image the positions of four tokens for each of its own, row by row: float [3, 4 * tokens]."""
        own = self.batch.positions[:, 0, self.batch.visual[0]].float().split(self.tokens, dim=1)
        aside = torch.tensor([-0.25, 0.25])
        found = []
        for places, (rows, columns) in zip(own, self.shapes, strict=True):
            four = places.view(3, rows, columns).repeat_interleave(2, 1).repeat_interleave(2, 2)
            four[1] += aside.repeat(rows)[:, None]
            four[2] += aside.repeat(columns)
            found.append(four.flatten(1))
        return found

    def smaller(self, share: float) -> Shown:
        """The whole images drawn smaller, at most this share of their tokens and one at least."""
        boxes = [_shrunk(shape, share) for shape in self.shapes]
        visual = [self.encode(_resized(*pair)) for pair in zip(self.pictures, boxes, strict=True)]
        batch = self.reader.batch([grid(box.columns, box.rows) for box in boxes], self.example.question)
        return Shown([box.area for box in boxes], batch, torch.cat(visual))

    @torch.inference_mode()
    def logits(self, shown: Shown) -> torch.Tensor:
        """Of the answer's tokens: float [answer tokens, vocabulary]."""
        return answer_logits(self.reader.reference.model, shown.batch, shown.visual[None])

    def right(self, shown: Shown) -> bool:
        """Whether the greedy answer is the right one, word for word."""
        return bool(exact(self.logits(shown), shown.batch)[0])


def _mask(box: Box, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(box.mask(shape).ravel())


def _shrunk(shape: tuple[int, ...], share: float) -> Box:
    """The largest grid with at most this share of a grid's tokens whose sides are in about the same ratio."""
    most = max(1, int(share * shape[0] * shape[1]))
    sizes = [
        (high, wide)
        for high in range(1, shape[0] + 1)
        for wide in range(1, shape[1] + 1)
        if high * wide <= most
    ]
    alike = [(high, wide) for high, wide in sizes if 2 / 3 <= high * shape[1] / (wide * shape[0]) <= 3 / 2]
    return whole(max(alike or sizes, key=lambda size: size[0] * size[1]))


def _resized(picture: Image.Image, box: Box) -> Image.Image:
    """As large as a box of so many tokens."""
    size = (box.columns * CELL, box.rows * CELL)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)
