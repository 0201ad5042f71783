"""Puts rankings that are not the small model's where its own would be.

A request names its ranking in ``SamplingParams.extra_args``; everything after the guide (selection,
rewriting, the large engine) is the real path. "tome" is no ranking: its tokens are merged, which the engine
cannot take, so its answer is put where the small model's would be, and ends the request.
"""

import asyncio

import torch

from vllm_sgl.core import Answer, GuideRequest, GuideResult
from vllm_sgl.guide.base import Guide, GuideWrapper
from vllm_sgl.request import exit_rules

from .rankings import OutsideAnswer, Rankings

#: Keys of ``extra_args``: the ranking's name, the question's id, and for "tome" the share of tokens to keep.
RANKING, QUESTION, RETENTION = "accuracy_ranking", "accuracy_question", "accuracy_retention"

exit_rules.GUIDE_KEYS.update((RANKING, QUESTION, RETENTION))

_NO_ANSWER = Answer(text="", token_ids=(), logprobs=(), finished=False, finish_reason=None)


class RankingGuide(GuideWrapper):
    """A :class:`vllm_sgl.guide.base.Guide` that asks :class:`Rankings` where a request names one, and the
    small model where it does not."""

    def __init__(self, small: Guide, rankings: Rankings) -> None:
        super().__init__(small)
        self._rankings = rankings

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        asked = request.params.extra_args or {}
        if RANKING not in asked:
            return await super().look(request, answer_tokens)
        prompt, counts = request.prompt, request.visual_tokens
        if asked[RANKING] == "tome":
            answer = await asyncio.to_thread(self._rankings.merged_answer, prompt, asked[RETENTION], counts)
            return GuideResult([torch.zeros(count) for count in counts], answer)
        importance = await asyncio.to_thread(
            self._rankings.importance, asked[RANKING], asked[QUESTION], prompt, counts
        )
        return GuideResult(importance, _NO_ANSWER)

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        if isinstance(result.answer, OutsideAnswer):
            return 1.0  # it ends the request, whatever the small model would say
        return await super().confirm(request, result, share)
