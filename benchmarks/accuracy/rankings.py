"""Rankings of visual tokens that do not come from the small model, put where its own would be.

A request names its ranking in ``SamplingParams.extra_args``; everything after the guide (selection,
rewriting, the large engine) is the real path.
"""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tools.internvl_reference import fastv
from tools.internvl_reference.reference import reference
from tools.internvl_reference.tiling import Tiling
from vllm_sgl.core import Answer, GuideRequest, GuideResult
from vllm_sgl.guide.base import Guide

from .data import Question

#: Keys of ``extra_args``: the ranking's name and the question's id.
RANKING, QUESTION = "accuracy_ranking", "accuracy_question"

_NO_ANSWER = Answer(text="", token_ids=(), logprobs=(), finished=False, finish_reason=None)


class Rankings:
    """Importance of every visual token, by the name of the ranking.

    Args:
        questions: all that may be asked about.
        large: checkpoint directory of the large model; "fastv" and "oracle" run it in transformers, float32.
        cache: JSON Lines file where those two are kept.
        max_tokens: the longest answer; the oracle's query rows run over the large model's own.
        seed: of "random", together with the question's id.
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
            return self._random(id, counts)
        if ranking == "box":
            return box_importance(self._questions[id], self._tiling)
        with self._computing:  # one at a time: a forward pass takes every core
            if (ranking, id) not in self._known:
                self._known[ranking, id] = self._compute(ranking, prompt)
                values = [part.tolist() for part in self._known[ranking, id]]
                with self._cache.open("a") as file:
                    print(json.dumps({"ranking": ranking, "question": id, "importance": values}), file=file)
            return self._known[ranking, id]

    def _random(self, id: str, counts: Sequence[int]) -> list[torch.Tensor]:
        digest = hashlib.sha256(f"{self._seed}/{id}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        return list(torch.rand(sum(counts), generator=generator).split(list(counts)))

    def _compute(self, ranking: str, prompt: Any) -> list[torch.Tensor]:
        large = reference(self._large)
        ids = prompt["prompt_token_ids"]
        pixels = [item["pixel_values_flat"].data for item in prompt["mm_kwargs"]["image"]]
        if ranking == "fastv":
            return fastv.importance(large, ids, pixels)
        answer = large.generate(ids, pixels, self._max_tokens)
        return large.importance(ids, pixels, answer.tokens)


def box_importance(question: Question, tiling: Tiling) -> list[torch.Tensor]:
    """Per image: the covered share of each visual token that touches an answer box, in (0, 1]; for the others
    minus the distance to the nearest box, in image sides, so that what surrounds a box comes next."""
    parts = []
    for number, path in enumerate(question.images):
        with Image.open(path) as image:
            width, height = image.size
        tokens = tiling.token_boxes(width, height)
        best = torch.full((len(tokens),), -float("inf"), dtype=torch.float64)
        for _, *box in (box for box in question.boxes if box[0] == number):
            target = torch.tensor(box, dtype=torch.float64)
            low = torch.maximum(tokens[:, :2], target[:2])
            high = torch.minimum(tokens[:, 2:], target[2:])
            gap = (low - high).clamp(min=0) / torch.tensor([width, height])
            share = (high - low).clamp(min=0).prod(1) / (tokens[:, 2:] - tokens[:, :2]).prod(1)
            best = torch.maximum(best, torch.where(share > 0, share, -gap.norm(dim=1)))
        parts.append(best.float())
    return parts


class RankingGuide:
    """A :class:`vllm_sgl.guide.base.Guide` that asks :class:`Rankings` where a request names one, and the
    small model where it does not."""

    def __init__(self, small: Guide, rank: Callable[..., list[torch.Tensor]]) -> None:
        self._small = small
        self._rank = rank

    @property
    def context(self) -> int:
        return self._small.context

    @property
    def alive(self) -> bool:
        return self._small.alive

    async def start(self) -> None:
        await self._small.start()

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        asked = request.params.extra_args or {}
        if RANKING not in asked:
            return await self._small.look(request, answer_tokens)
        importance = await asyncio.to_thread(
            self._rank, asked[RANKING], asked[QUESTION], request.prompt, request.visual_tokens
        )
        return GuideResult(importance, _NO_ANSWER)

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        return await self._small.confirm(request, result, share)

    async def abort(self, request_id: str) -> None:
        await self._small.abort(request_id)

    def stop(self) -> None:
        self._small.stop()
