"""LLaVA-OneVision (``llava-hf/llava-onevision-*``): the whole image once, then its tiles as one fine grid;
a video's frames one by one, each in a quarter of a tile's tokens, and one newline at the end.

Where tokens lie follows the published model ("LLaVA-OneVision: Easy Visual Task Transfer", arXiv 2408.03326):
an image is scaled to fit the best of the pinpoints, padded to it and cut into tiles; the tiles' features are
put together, those of the padding cut off again, and each row is followed by a newline.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from transformers.image_processing_utils import select_best_resolution
from vllm.config import ModelConfig
from vllm.model_executor.models.llava_onevision import LlavaOnevisionForConditionalGeneration
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_sgl.families.base import NO_SETTINGS
from vllm_sgl.model.pruned import Pruned
from vllm_sgl.visual.layout import Layout, LayoutOf, Spans, View
from vllm_sgl.visual.tiles import Encoded, Item, Tiles, encoded_as, square_tiles

#: How an image becomes tiles' pixels; the names of the image processor's attributes.
_PIXELS = ("size", "image_mean", "image_std")
#: How tiles become visual tokens; the names in the model's config.
_TOKENS = ("image_grid_pinpoints", "vision_aspect_ratio", "vision_feature_select_strategy")
#: A video's frames.
_FRAMES = "pixel_values_videos"
#: A grid is shrunk only where its sides exceed the largest by more than this.
_SLACK = 1.1


@dataclass(frozen=True)
class Anyres:
    """side: of a tile, pixels. patch: of a vision patch, pixels: ``side // patch`` of them see a tile's side,
    and what is left over is seen by none. pinpoints: (height, width) of each canvas that an image may be
    scaled to, pixels. most: tiles' worth of tokens that a grid has at most.
    """

    side: int
    patch: int
    pinpoints: Sequence[Sequence[int]]
    most: int

    @property
    def cells(self) -> int:
        return self.side // self.patch

    def layout(self, width: int, height: int) -> Layout:
        """Tokens: the whole image's, row by row; then the grid's, each row followed by a newline."""
        across, down = self._grid(width, height)
        columns, rows, once = len(across), len(down), self.cells**2
        fine = once + np.arange(rows * (columns + 1)).reshape(rows, columns + 1)[:, :columns]
        coarse = self._seen(np.arange(self.cells, dtype=np.float64), 1) / self.side
        base = View(np.arange(once).reshape(self.cells, self.cells), coarse, coarse)
        return Layout(once + rows * (columns + 1), (View(fine, across, down), base))

    def tiles(self, width: int, height: int) -> int:
        """The number of tiles of an image's canvas."""
        tall, wide = self._canvas(width, height)
        return (tall // self.side) * (wide // self.side)

    def _canvas(self, width: int, height: int) -> tuple[int, int]:
        """Height and width in pixels of what an image is fitted into, as a pinpoint has them."""
        tall, wide = select_best_resolution((height, width), list(self.pinpoints))
        return tall, wide

    def _grid(self, width: int, height: int) -> tuple[Spans, Spans]:
        """Spans of the grid's columns and of its rows, in shares of the image."""
        tall, wide = self._canvas(width, height)
        # Features of the canvas, and how many of them are cut off again on either side.
        features_x, features_y = wide // self.side * self.cells, tall // self.side * self.cells
        cut_x = cut_y = 0
        if width / height > features_x / features_y:
            cut_y = (features_y - int(round(height * (features_x / width), 7))) // 2
        else:
            cut_x = (features_x - int(round(width * (features_y / height), 7))) // 2
        left_x, left_y = features_x - 2 * cut_x, features_y - 2 * cut_y
        shrink = math.sqrt(left_x * left_y / (self.most * self.cells**2))
        columns, rows = left_x, left_y
        if shrink > _SLACK:
            columns, rows = int(left_x // shrink), int(left_y // shrink)
        # The image is scaled to fit the canvas, and lies in its middle.
        scaled_x, scaled_y = wide, tall
        if wide / width < tall / height:
            scaled_y = min(math.ceil(height * (wide / width)), tall)
        else:
            scaled_x = min(math.ceil(width * (tall / height)), wide)
        return (
            self._spans(cut_x, left_x, columns, (wide - scaled_x) // 2, scaled_x),
            self._spans(cut_y, left_y, rows, (tall - scaled_y) // 2, scaled_y),
        )

    def _spans(self, cut: int, left: int, count: int, offset: int, scaled: int) -> Spans:
        """Spans of ``count`` tokens over the ``left`` features from ``cut`` on; the image lies on the
        canvas from ``offset`` on, ``scaled`` pixels long."""
        each = left / max(count, 1)  # of a very thin image nothing but newlines may be left
        return (self._seen(cut + np.arange(count, dtype=np.float64) * each, each) - offset) / scaled

    def _seen(self, begin: npt.NDArray[np.float64], length: float) -> Spans:
        """Pixels [n, 2] of a canvas that features from ``begin`` [n] on see, ``length`` features each."""
        tile = np.floor(begin / self.cells + 1e-9)
        first = tile * self.side + (begin - tile * self.cells) * self.patch
        return np.stack([first, first + length * self.patch], axis=-1)


class LlavaOnevision:
    """Newlines are visual tokens too: they are ranked and kept like any other."""

    pixel_fields: ClassVar[Mapping[str, str]] = {"image": "pixel_values", "video": _FRAMES}
    image_processors: ClassVar[tuple[str, ...]] = ("LlavaOnevisionImageProcessor",)
    prompt_formats: ClassVar[Mapping[str, str]] = {}

    def vision_facts(self, model: ModelConfig) -> dict[str, object]:
        info = _info(model)
        processor, config = info.get_hf_processor().image_processor, info.get_hf_config()
        settings = info.ctx.get_merged_mm_kwargs({})
        return {
            **{name: settings.get(name, getattr(processor, name)) for name in _PIXELS},
            **{name: getattr(config, name) for name in _TOKENS},
            "patch_size": config.vision_config.patch_size,
        }

    def layout_of(self, model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS) -> LayoutOf:
        # What a request may set is about pixels: vLLM counts tokens by the config alone.
        return self._anyres(model).layout

    @staticmethod
    def _anyres(model: ModelConfig) -> Anyres:
        config = _info(model).get_hf_config()
        _, anyres, most = config.vision_aspect_ratio.partition("anyres_max_")
        if not anyres:
            raise ValueError(
                f"{model.model}: expected a vision_aspect_ratio of anyres_max_N, received "
                f"{config.vision_aspect_ratio!r}: add how it cuts an image to vllm_sgl/families/"
                "llava_onevision.py"
            )
        return Anyres(
            side=config.vision_config.image_size,
            patch=config.vision_config.patch_size,
            pinpoints=config.image_grid_pinpoints,
            most=int(most),
        )

    def tiles(self, model: ModelConfig) -> Mapping[str, Tiles]:
        """Frames; an image's tiles are not apart, because their tokens are spread over the grid's rows."""
        vision = _info(model).get_hf_config().vision_config
        cells = math.ceil(vision.image_size // vision.patch_size / 2)
        return {"video": Tiles(_FRAMES, square_tiles(cells), rest=1)}

    def encoded(self, model: ModelConfig) -> Mapping[str, Encoded]:
        anyres, pixels = self._anyres(model), self.pixel_fields["image"]
        sides = anyres.side, anyres.side

        def of_image(item: Item) -> int | None:
            """The encoder's part puts together what vLLM has counted, by the same config, if all tiles are
            there."""
            height, width = item["image_sizes"].data.tolist()
            tiles = item[pixels].data
            all_there = tiles.shape[-2:] == sides and len(tiles) > anyres.tiles(width, height)
            return None if all_there else 0

        return {"image": of_image, "video": encoded_as(self.tiles(model)["video"], *sides)}


FAMILY = LlavaOnevision()


def _info(model: ModelConfig) -> Any:
    return MULTIMODAL_REGISTRY.create_processor(model).info


class SGLLlavaOnevisionForConditionalGeneration(Pruned, LlavaOnevisionForConditionalGeneration):
    """vLLM's class that keeps only chosen visual tokens, at their original positions."""

    def tile_counts(self, said: Sequence[int | None], **kwargs: Any) -> list[int]:
        return [len(frames) for frames in kwargs[_FRAMES]] if _FRAMES in kwargs else [1] * len(said)

    def pick(self, which: Sequence[int], counts: Sequence[int], **kwargs: Any) -> dict[str, object]:
        if _FRAMES in kwargs:
            frames = [frame for video in kwargs[_FRAMES] for frame in video]
            return {_FRAMES: torch.stack([frames[number] for number in which])[:, None]}
        tiles, sizes = kwargs["pixel_values"], kwargs["image_sizes"]
        return {"pixel_values": [tiles[item] for item in which], "image_sizes": sizes[list(which)]}

    def rest(self, **kwargs: Any) -> torch.Tensor:
        """A video ends with one newline."""
        return self.image_newline[None] if _FRAMES in kwargs else super().rest(**kwargs)

    def encode(self, **kwargs: object) -> Sequence[torch.Tensor]:
        # Videos of different lengths have an axis too many in vLLM 0.32, which its runner does not take.
        return [features.flatten(0, -2) for features in super().encode(**kwargs)]
