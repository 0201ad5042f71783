"""Prompts in Qwen2-VL's words and positions; see the InternVL readers' :mod:`..training.prompts`."""

from dataclasses import replace

import torch
from tokenizers import Tokenizer

from tools.tiny_families.qwen2_vl import IMAGE, VISION_END, VISION_START
from tools.tiny_internvl.tokenizer import IM_END, IM_START

from ..questions import Question
from ..training.prompts import Batch, Prompts, drop

Grid = tuple[int, int]  # visual tokens across, down


class NativePrompts(Prompts):
    """Batches whose positions are [3, rows, length]: time, row and column of visual tokens, and three times
    the same for text, which goes on behind the larger side of an image."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.image_id = tokenizer.token_to_id(IMAGE)
        self.end_id = tokenizer.token_to_id(IM_END)

    def prefix(self, visual: list[int]) -> list[int]:
        images = "".join(VISION_START + IMAGE * count + VISION_END for count in visual)
        return self._ids(f"{IM_START}user\n{images}")

    def native_batch(self, grids: list[Grid], rows: list[list[Question]]) -> Batch:
        """One row per list of questions; every row has images of these grids of visual tokens."""
        visual = [columns * down for columns, down in grids]
        batch = self.batch(visual, rows)
        ids = self.prefix(visual)
        before, after = self._prefix_positions(ids, grids)
        behind = batch.positions - len(ids) + after
        positions = behind.expand(3, -1, -1).clone()
        positions[..., : len(ids)] = before[:, None]
        return replace(batch, positions=positions)

    def _prefix_positions(self, ids: list[int], grids: list[Grid]) -> tuple[torch.Tensor, int]:
        """[3, prefix], and the position behind it."""
        positions: list[tuple[int, int, int]] = []
        next_, images = 0, iter(grids)
        while len(positions) < len(ids):
            if ids[len(positions)] != self.image_id:
                positions.append((next_, next_, next_))
                next_ += 1
                continue
            columns, down = next(images)
            positions += [
                (next_, next_ + row, next_ + column) for row in range(down) for column in range(columns)
            ]
            next_ += max(columns, down)
        return torch.tensor(positions).T, next_


def drop_native(batch: Batch, kept: torch.Tensor) -> Batch:
    """The batch with only some visual tokens, at their original positions; `kept` as :func:`drop` has it."""
    flat = [drop(replace(batch, positions=axis), kept) for axis in batch.positions]
    return replace(flat[0], positions=torch.stack([one.positions for one in flat]))
