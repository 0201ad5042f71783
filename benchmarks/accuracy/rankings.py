"""Rankings of visual tokens that do not come from the small model, and answers about merged ones."""

import hashlib
import json
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tools.internvl_reference import fastv
from tools.internvl_reference.tiling import Tiling
from tools.reference import Reference, reference
from vllm_sgl.core import Answer
from vllm_sgl.evaluate.questions import Question
from vllm_sgl.prune.base import kept_count

from .baselines import cdpruner, divprune, tome

#: Farther than two corners of an image are from each other, in image sides; importance has to be finite.
_NO_BOX = 2.0


class OutsideAnswer(Answer):
    """An answer that the large model gave in transformers."""


class Rankings:
    """Importance of every visual token, by the name of the ranking.

    Args:
        questions: all that may be asked about.
        large: checkpoint directory of the large model; all but "random", "frames" and "box" run it in
            transformers, float32.
        cache: JSON Lines file where those are kept.
        max_tokens: the longest answer; the oracle's query rows run over the large model's own.
        seed: of "random" and "frames", together with the question's id.
    """

    def __init__(
        self,
        questions: Iterable[Question],
        large: Path,
        tiling: Tiling,
        cache: Path,
        max_tokens: int,
        seed: int,
    ) -> None:
        self._questions = {question.id: question for question in questions}
        self._large, self._tiling, self._cache = large, tiling, cache
        self._max_tokens, self._seed = max_tokens, seed
        self._computing = threading.Lock()
        self._known: dict[tuple[str, str], list[torch.Tensor]] = {}
        if cache.exists():
            for line in cache.read_text().splitlines():
                entry = json.loads(line)
                values = [torch.tensor(part) for part in entry["importance"]]
                self._known[entry["ranking"], entry["question"]] = values

    def importance(self, ranking: str, id: str, prompt: Any, counts: Sequence[int]) -> list[torch.Tensor]:
        """One float32 tensor [visual tokens] per image.

        Args:
            prompt: the rendered prompt. counts: visual tokens of each image.
        """
        if ranking == "random":
            return list(self._random(id, sum(counts)).split(list(counts)))
        if ranking == "frames":
            return [
                value.expand(count)
                for value, count in zip(self._random(id, len(counts)), counts, strict=True)
            ]
        if ranking == "box":
            return box_importance(self._questions[id], self._tiling)
        with self._computing:  # one at a time: a forward pass takes every core
            if (ranking, id) not in self._known:
                self._known[ranking, id] = self._compute(ranking, id, prompt)
                values = [part.tolist() for part in self._known[ranking, id]]
                with self._cache.open("a") as file:
                    print(json.dumps({"ranking": ranking, "question": id, "importance": values}), file=file)
            return self._known[ranking, id]

    def _random(self, id: str, count: int) -> torch.Tensor:
        digest = hashlib.sha256(f"{self._seed}/{id}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return torch.rand(count, generator=generator)

    def merged_answer(self, prompt: Any, retention: float, counts: Sequence[int]) -> OutsideAnswer:
        """What the large model answers about merged visual tokens, by ToMe."""
        with self._computing:
            large = reference(self._large)
            kept = kept_count(retention, sum(counts))
            tokens, logprobs = tome.generate(large, *_inputs(prompt), kept, self._max_tokens)
        text = large.tokenizer.decode(tokens, skip_special_tokens=True)
        return OutsideAnswer(text, tuple(tokens), tuple(logprobs.tolist()), True, "stop")

    def _compute(self, ranking: str, id: str, prompt: Any) -> list[torch.Tensor]:
        large = reference(self._large)
        ids, pixels = _inputs(prompt)
        if ranking == "fastv":
            return fastv.importance(large, ids, pixels)
        if ranking in ("divprune", "cdpruner", "dpp"):
            return _in_order(large, pixels, ranking, self._questions[id].text)
        answer = large.generate(ids, pixels, self._max_tokens)
        return large.importance(ids, pixels, answer.tokens)


def _inputs(prompt: Any) -> tuple[list[int], list[torch.Tensor]]:
    """Token ids and each image's tiles of a rendered prompt."""
    pixels = [item["pixel_values_flat"].data for item in prompt["mm_kwargs"]["image"]]
    return prompt["prompt_token_ids"], pixels


def _in_order(
    large: Reference, pixels: Sequence[torch.Tensor], ranking: str, question: str
) -> list[torch.Tensor]:
    """The order in which a greedy set grows, as importance."""
    visual = [large.visual_features(tiles) for tiles in pixels]
    together = torch.cat(visual)
    if ranking == "divprune":
        order = divprune.order(together)
    else:
        relevance = torch.ones(len(together))
        if ranking == "cdpruner":
            relevance = cdpruner.relevance(together, cdpruner.text_features(large, question))
        encoded = torch.cat([cdpruner.encoder_features(large, tiles) for tiles in pixels])
        order = cdpruner.order(encoded, relevance)
    importance = torch.empty(len(order)).scatter_(0, order, torch.arange(len(order), 0, -1).float())
    return list(importance.split([len(part) for part in visual]))


def box_importance(question: Question, tiling: Tiling) -> list[torch.Tensor]:
    """Per image: the covered share of each visual token that touches an answer box, in (0, 1]; for the others
    minus the distance to the nearest box, in image sides, so that what surrounds a box comes next. An image
    without a box comes last."""
    parts = []
    for number, path in enumerate(question.images):
        with Image.open(path) as image:
            width, height = image.size
        tokens = tiling.token_boxes(width, height)
        best = torch.full((len(tokens),), -_NO_BOX, dtype=torch.float64)
        for _, *box in (box for box in question.boxes if box[0] == number):
            target = torch.tensor(box, dtype=torch.float64)
            low = torch.maximum(tokens[:, :2], target[:2])
            high = torch.minimum(tokens[:, 2:], target[2:])
            gap = (low - high).clamp(min=0) / torch.tensor([width, height])
            share = (high - low).clamp(min=0).prod(1) / (tokens[:, 2:] - tokens[:, :2]).prod(1)
            best = torch.maximum(best, torch.where(share > 0, share, -gap.norm(dim=1)))
        parts.append(best.float())
    return parts
