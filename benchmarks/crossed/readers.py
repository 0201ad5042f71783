"""The sign readers in transformers: how each sees an image, and how it is asked."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoImageProcessor

from tools.internvl_reference.tiling import Tiling
from tools.reference import Reference, reference
from tools.sign_reading.native.prompts import NativePrompts, drop_native
from tools.sign_reading.questions import Question
from tools.sign_reading.scene import TILE
from tools.sign_reading.training.bank import cut
from tools.sign_reading.training.prompts import Batch, Prompts, drop
from tools.sign_reading.training.vision import normalise
from vllm_sgl.visual.layout import Layout, grid, tiled


class Reader(Protocol):
    """One of the sign readers, with its own way to look at images.

    name: what it is and how it looks, for the figures.
    """

    name: str
    reference: Reference

    def layout(self, picture: Image.Image) -> Layout: ...

    def image(self, picture: Image.Image) -> Any:
        """As its reference takes images."""
        ...

    def prompt(self, layouts: Sequence[Layout], question: Question) -> list[int]:
        """Token ids, up to where the answer begins."""
        ...

    def batch(self, layouts: Sequence[Layout], question: Question) -> Batch:
        """The prompt with the right answer behind it."""
        ...

    def drop(self, batch: Batch, kept: torch.Tensor) -> Batch:
        """The rows without other visual tokens than these, bool [rows, visual tokens]."""
        ...


class InternVLReader:
    """Looks at up to so many tiles (those of its config, if None), and a thumbnail."""

    def __init__(self, path: Path, max_tiles: int | None = None) -> None:
        config = json.loads((path / "config.json").read_text())
        tiling = Tiling.of(config)
        self._tiling = tiling if max_tiles is None else replace(tiling, max_tiles=max_tiles)
        self._prompts = Prompts(Tokenizer.from_file(str(path / "tokenizer.json")))
        self.name = f"{path.name}, up to {self._tiling.max_tiles} tiles"
        self.reference = reference(path)

    def layout(self, picture: Image.Image) -> Layout:
        columns, rows = self._tiling.grid(*picture.size)
        return tiled(columns, rows, self._tiling.cells, self._tiling.thumbnail and columns * rows > 1)

    def image(self, picture: Image.Image) -> torch.Tensor:
        columns, rows = self._tiling.grid(*picture.size)
        tiles = cut(_resized(picture, columns * TILE, rows * TILE))
        if columns * rows > 1:
            tiles = np.concatenate([tiles, _resized(picture, TILE, TILE)[None]])
        return normalise(tiles)

    def prompt(self, layouts: Sequence[Layout], question: Question) -> list[int]:
        return _prompt(self._prompts, layouts, question)

    def batch(self, layouts: Sequence[Layout], question: Question) -> Batch:
        return self._prompts.batch([layout.visual_tokens for layout in layouts], [[question]])

    def drop(self, batch: Batch, kept: torch.Tensor) -> Batch:
        return drop(batch, kept)


class NativeReader:
    """Looks at images at their own resolution, up to so many visual tokens (its processor's, if None)."""

    def __init__(self, path: Path, max_tokens: int | None = None) -> None:
        self._processor = AutoImageProcessor.from_pretrained(path, use_fast=True)
        size = self._processor.size
        token = (self._processor.patch_size * self._processor.merge_size) ** 2
        self._size = {
            "shortest_edge": size["shortest_edge"],
            "longest_edge": size["longest_edge"] if max_tokens is None else max_tokens * token,
        }
        self._prompts = NativePrompts(Tokenizer.from_file(str(path / "tokenizer.json")))
        self.name = f"{path.name}, up to {self._size['longest_edge'] // token} visual tokens"
        self.reference = reference(path)

    def layout(self, picture: Image.Image) -> Layout:
        _, height, width = self.image(picture)["image_grid_thw"].tolist()
        return grid(width // self._processor.merge_size, height // self._processor.merge_size)

    def image(self, picture: Image.Image) -> dict[str, torch.Tensor]:
        made = self._processor([picture], size=self._size, return_tensors="pt")
        return {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"][0]}

    def prompt(self, layouts: Sequence[Layout], question: Question) -> list[int]:
        return _prompt(self._prompts, layouts, question)

    def batch(self, layouts: Sequence[Layout], question: Question) -> Batch:
        shapes = [layout.views[0].tokens.shape for layout in layouts]
        return self._prompts.native_batch([(across, down) for down, across in shapes], [[question]])

    def drop(self, batch: Batch, kept: torch.Tensor) -> Batch:
        return drop_native(batch, kept)


def _prompt(prompts: Prompts, layouts: Sequence[Layout], question: Question) -> list[int]:
    asked, answer = prompts.block(question)
    return prompts.prefix([layout.visual_tokens for layout in layouts]) + asked[:-answer]


def _resized(picture: Image.Image, width: int, height: int) -> np.ndarray:
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)
