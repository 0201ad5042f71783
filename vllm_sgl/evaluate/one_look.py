"""A guide that looks at each question once, in however many ways it is asked."""

import asyncio
from collections import OrderedDict

from vllm_sgl.core import GuideRequest, GuideResult
from vllm_sgl.guide.base import Guide, GuideWrapper
from vllm_sgl.request import exit_rules

#: Key of ``extra_args``: the question's id.
QUESTION = "calibrate_question"
exit_rules.GUIDE_KEYS.add(QUESTION)

#: Questions whose looks are remembered; the ways of one are asked close to each other.
_KEPT = 64


class OneLook(GuideWrapper):
    """A :class:`vllm_sgl.guide.base.Guide`: the same question has the same importance and answer under every
    setting, and costs one pass."""

    def __init__(self, guide: Guide) -> None:
        super().__init__(guide)
        self._looks: OrderedDict[tuple[str, int, str], asyncio.Task[GuideResult]] = OrderedDict()

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        key = (str((request.params.extra_args or {})[QUESTION]), answer_tokens, request.query_rows)
        if key not in self._looks:
            self._looks[key] = asyncio.create_task(super().look(request, answer_tokens))
            if len(self._looks) > _KEPT:
                self._looks.popitem(last=False)
        return await asyncio.shield(self._looks[key])
