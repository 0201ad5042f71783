"""A guide whose model has another tokenizer, chat template or prompt format than the large one."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from vllm_sgl.core import GuideRequest, GuideResult, Reason, RenderedPrompt, VisualItem
from vllm_sgl.errors import GuideError, RequestAborted, Unguidable
from vllm_sgl.guide.base import Guide, GuideWrapper
from vllm_sgl.guide.views.vocabulary import LargeVocabulary, without_tokens
from vllm_sgl.host.render.conversation import Conversation, conversation_of
from vllm_sgl.host.render.small_prompt import REFUSALS, SecondRenderer, left_out, own_values
from vllm_sgl.visual.items import images_alone, visual_counts

logger = logging.getLogger("vllm.vllm_sgl.guide")

#: The images and videos of a rendered prompt, in prompt order.
ItemsOf: TypeAlias = Callable[[RenderedPrompt], tuple[VisualItem, ...]]


@dataclass(frozen=True, kw_only=True)
class TranslatedResult(GuideResult):
    """What a guide saw that was asked in its own tokens; it goes with the request, pixels and all.

    own: as the guide gave it. asked: what the guide was asked.
    """

    own: GuideResult
    asked: GuideRequest


class Translated(GuideWrapper):
    """Each conversation is rendered once more, for the small model. Importance is that of the small model's
    own visual tokens, which are as many as the large model's, or
    :class:`vllm_sgl.guide.views.crossed.Crossed` carries it to those.

    Args:
        guide: takes the small model's prompts.
        small: a renderer of the small model's, ended with the guide.
        large: the large engine's, which remembers conversations.
        vocabulary: the large model's; None where both models have the same tokens.
        items: reads the images of the small model's prompts, where that one cuts them in its own way; None
            where they are those of the large model's prompts.
        settings: whether a request's own ``mm_processor_kwargs`` are some of the small model's too.
    """

    def __init__(
        self,
        guide: Guide,
        small: Any,
        large: Any,
        vocabulary: LargeVocabulary | None,
        items: ItemsOf | None = None,
        settings: bool = True,
    ) -> None:
        super().__init__(guide)
        self._items = items
        self._settings = settings
        self._small = small
        self._large = large
        self._vocabulary = vocabulary
        self._second: SecondRenderer | None = None
        self._rendering: set[str] = set()
        self._aborted: set[str] = set()

    @property
    def context(self) -> int:
        return sys.maxsize  # how long a prompt is in the small model's tokens is known once it is rendered

    async def start(self) -> None:
        """Also find out, once, whether one processing of an image serves both models."""
        await super().start()
        own = None
        if self._items is None and self._large.model_config.multimodal_config.get_limit_per_prompt("image"):
            own = own_values(self._large.get_mm_processor(), self._small.get_mm_processor())
        self._second = SecondRenderer(self._small, own)
        images = "a second time too" if own is None else "once for both models"
        logger.info(
            "SGL: every conversation is rendered a second time, in the small model's own chat template; its "
            "images are processed %s", images,
        )  # fmt: skip
        for what in sorted(left_out(self._small) - left_out(self._large)):
            logger.warning(
                "SGL: the chat template of %s leaves out %s: the small model guides without them, the large "
                "one has them", self._small.model_config.model, what,
            )  # fmt: skip

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        if not self._guide.alive:  # nothing is rendered for a guide that would refuse it
            raise GuideError(Reason.GUIDE_DEAD, "the small engine is dead")
        asked = await self.translate(request)
        if len(asked.prompt["prompt_token_ids"]) + 2 > self._guide.context:
            raise Unguidable(Reason.TOO_LONG)
        result = await self._guide.look(asked, answer_tokens)
        answer = result.answer
        if self._vocabulary is not None:
            answer = self._vocabulary.translate(answer, asked)
        return TranslatedResult(result.importance, answer, own=result, asked=asked)

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        if not isinstance(result, TranslatedResult):
            raise GuideError(Reason.GUIDE_FAILED, "expected a result that this guide gave, unchanged")
        return await self._guide.confirm(result.asked, result.own, share)

    async def abort(self, request_id: str) -> None:
        if request_id in self._rendering:
            self._aborted.add(request_id)
        await super().abort(request_id)

    def stop(self, timeout: float | None = None) -> None:
        super().stop(timeout)
        self._small.shutdown()

    async def translate(self, request: GuideRequest) -> GuideRequest:
        """What the small model is asked instead.

        Raises:
            Unguidable: where the conversation behind the prompt is not known, or has a video: its prompt and
                pixels are made together, for one model.
            GuideError: where the small model's renderer refuses the conversation, fails, or sees other visual
                tokens.
            RequestAborted: when the request was aborted meanwhile.
        """
        if not images_alone(request.items):
            raise Unguidable(Reason.UNSUPPORTED_MODALITY)
        conversation = conversation_of(request.prompt)
        if conversation is None:
            raise Unguidable(Reason.NO_CONVERSATION)
        if not conversation.whole:
            raise Unguidable(Reason.UUID_ALONE)
        self._rendering.add(request.id)
        try:
            prompt = await self._render(conversation, request)
            if request.id in self._aborted:
                raise RequestAborted(f"guide request {request.id} was aborted")
        finally:
            self._rendering.discard(request.id)
            self._aborted.discard(request.id)
        params = request.params if self._vocabulary is None else without_tokens(request.params)
        items = request.items if self._items is None else self._items(prompt)
        return replace(request, prompt=prompt, items=items, params=params)

    async def _render(self, conversation: Conversation, request: GuideRequest) -> RenderedPrompt:
        assert self._second is not None, "translate() before start()"
        if not self._settings:
            conversation = replace(conversation, processor_kwargs={})
        try:
            prompt: RenderedPrompt = await self._second.render(conversation, request.prompt)
        except Exception as error:
            # What a template or a processor has against this conversation is no failure of theirs.
            reason = Reason.GUIDE_REFUSED if isinstance(error, REFUSALS) else Reason.GUIDE_FAILED
            raise GuideError(
                reason, f"the small model's renderer: {type(error).__name__}: {error}"
            ) from error
        if salt := request.prompt.get("cache_salt"):  # the small engine's cache is kept apart, too
            prompt = {**prompt, "cache_salt": salt}
        counts = visual_counts(prompt)
        if len(counts) != len(request.items):
            raise GuideError(
                Reason.GUIDE_REFUSED,
                f"expected {len(request.items)} images in the small model's prompt, as in the large one's; "
                f"its chat template has places for {len(counts)}",
            )
        if self._items is None and counts != request.visual_tokens:
            own = conversation.named or bool(conversation.processor_kwargs)  # what the client says of images
            raise GuideError(
                Reason.GUIDE_REFUSED if own else Reason.GUIDE_FAILED,
                f"expected {request.visual_tokens} visual tokens per item, as for the large model; the small "
                f"model's processor makes {counts}",
            )
        return prompt
