"""Token ids of a request with several questions about the same images, and what may see what.

A row of a batch is

    <|im_start|> user \n  <img> visual tokens </img>  [\n <img> ... </img>]  \n  block  block ...

Every block reads the images and itself, and starts at the position at which it would stand alone: one pass
over the images trains all questions.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from tokenizers import Tokenizer

from tools.tiny_internvl.tokenizer import IM_END, IM_START, IMG_CONTEXT, IMG_END, IMG_START

from ..questions import Question

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Rows of equal length, with equally many visual tokens."""

    ids: torch.Tensor  # int64 [rows, length]
    positions: torch.Tensor  # int64 [rows, length]
    mask: torch.Tensor  # float32 [rows, 1, length, length], added to attention logits
    targets: torch.Tensor  # int64 [rows, length]: the next token where it is part of an answer, else IGNORED
    question: torch.Tensor  # int64 [rows, length]: 1 + number of the row's question; 0 and -1 are none
    visual: torch.Tensor  # bool [rows, length]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on this device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


class Prompts:
    """Writes batches with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.image_id = tokenizer.token_to_id(IMG_CONTEXT)
        self.end_id = tokenizer.token_to_id(IM_END)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def prefix(self, visual: list[int]) -> list[int]:
        """Everything before the question, for images of so many visual tokens each."""
        images = "\n".join(IMG_START + IMG_CONTEXT * count + IMG_END for count in visual)
        return self._ids(f"{IM_START}user\n{images}\n")

    def block(self, question: Question) -> tuple[list[int], int]:
        """A question with its answer, and how many of the last tokens are the answer."""
        asked = self._ids(f"{question.text}{IM_END}\n{IM_START}assistant\n")
        answer = self._ids(f"{question.answer}{IM_END}")
        return asked + answer, len(answer)

    def batch(self, visual: list[int], rows: list[list[Question]]) -> Batch:
        """One row per list of questions; all rows have images of the same numbers of visual tokens."""
        prefix = self.prefix(visual)
        blocks = [[self.block(question) for question in row] for row in rows]
        longest = max(len(ids) for row in blocks for ids, _ in row)
        length = len(prefix) + longest * max(len(row) for row in blocks)
        ids = np.zeros((len(rows), length), dtype=np.int64)
        positions = np.zeros_like(ids)
        targets = np.full_like(ids, IGNORED)
        # Padding is its own segment; it is never a target, so what it sees does not matter.
        segment = np.full_like(ids, -1)
        ids[:, : len(prefix)], positions[:, : len(prefix)], segment[:, : len(prefix)] = (
            prefix,
            range(len(prefix)),
            0,
        )
        for row, of_row in enumerate(blocks):
            for number, (tokens, answer) in enumerate(of_row):
                start = len(prefix) + number * longest
                end = start + len(tokens)
                ids[row, start:end] = tokens
                positions[row, start:end] = range(len(prefix), len(prefix) + len(tokens))
                segment[row, start:end] = 1 + number
                targets[row, end - answer - 1 : end - 1] = tokens[-answer:]
        same = segment[:, :, None] == segment[:, None, :]
        seen = (same | (segment == 0)[:, None, :]) & np.tri(length, dtype=bool)
        mask = np.where(seen, 0.0, np.finfo(np.float32).min).astype(np.float32)
        tensors = (torch.from_numpy(array) for array in (ids, positions, mask[:, None], targets, segment))
        return Batch(*tensors, torch.from_numpy(ids == self.image_id))


def drop(batch: Batch, kept: torch.Tensor) -> Batch:
    """The batch with only some visual tokens, at their original positions.

    Args:
        kept: bool [rows, visual tokens], equally many in every row.
    """
    columns = ~batch.visual
    columns[batch.visual] = kept.flatten()
    index = columns.nonzero()[:, 1].view(len(kept), -1)  # [rows, columns that stay]
    seen = batch.mask.gather(2, index[:, None, :, None].expand(-1, -1, -1, batch.mask.shape[-1]))
    return Batch(
        ids=batch.ids.gather(1, index),
        positions=batch.positions.gather(1, index),
        mask=seen.gather(3, index[:, None, None, :].expand(-1, -1, index.shape[1], -1)),
        targets=batch.targets.gather(1, index),
        question=batch.question.gather(1, index),
        visual=batch.visual.gather(1, index),
    )
