"""A guide whose model tiles images differently: another family, fewer tiles, fewer pixels."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vllm_sgl.config import Views
from vllm_sgl.core import GuideRequest, GuideResult, Reason
from vllm_sgl.errors import GuideError, Unguidable
from vllm_sgl.guide.base import GuideWrapper
from vllm_sgl.guide.views.translated import Translated, TranslatedResult
from vllm_sgl.host.render.conversation import conversation_of
from vllm_sgl.host.render.small_prompt import REFUSALS, image_sizes
from vllm_sgl.visual.items import placed_items
from vllm_sgl.visual.transfer import Transfer, TransferOf

#: What is carried for images of any size, under a request's own ``mm_processor_kwargs``.
TransfersOf = Callable[[Mapping[str, Any]], TransferOf]
#: Different such settings that are remembered: clients choose them.
_SETTINGS = 16


@dataclass(frozen=True, kw_only=True)
class CarriedResult(GuideResult):
    """A guide's result in the large model's visual tokens. own: in those of its own model."""

    own: GuideResult


class Crossed(GuideWrapper):
    """Carries importance to the large model's visual tokens, by where they lie in the image.

    Args:
        guide: renders conversations for the small model; its importance is that of its own visual tokens.
        processor: the large model's, which knows an image's size in whatever form it came.
        transfers: what is carried for an image of a given size, under a request's ``mm_processor_kwargs``.
        views: how thumbnails rank against grids.
    """

    def __init__(self, guide: Translated, processor: Any, transfers: TransfersOf, views: Views) -> None:
        super().__init__(guide)
        self._processor = processor
        self._transfers_of = transfers
        self._views = views
        self._known: OrderedDict[str, TransferOf] = OrderedDict()

    def sees(self, request: GuideRequest) -> int:
        try:
            return sum(one.source.visual_tokens for one in self._transfers(request))
        except (Unguidable, GuideError):  # look() says so
            return super().sees(request)

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        transfers = self._transfers(request)
        result = await self._guide.look(request, answer_tokens)
        return CarriedResult(self._carried(request, result, transfers), result.answer, own=result)

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        """On the small model's own most important visual tokens."""
        if not isinstance(result, CarriedResult):
            raise GuideError(Reason.GUIDE_FAILED, "expected a result that this guide gave, unchanged")
        return await self._guide.confirm(request, result.own, share)

    def _transfers(self, request: GuideRequest) -> list[Transfer]:
        """What is carried for each image of a request, in prompt order.

        Raises:
            Unguidable: where the images are not known, or the settings they are tiled by.
            GuideError: where either model's processor refuses one of them, or they are not cut as their
                model's family says.
        """
        conversation = conversation_of(request.prompt)
        placed = placed_items(request.prompt)
        if any(item.modality != "image" for item in placed):
            raise Unguidable(Reason.UNSUPPORTED_MODALITY)
        if conversation is None:
            raise Unguidable(Reason.NO_CONVERSATION)
        if not conversation.whole:
            raise Unguidable(Reason.UUID_ALONE)
        transfer = self._transfer(conversation.processor_kwargs)
        try:
            sizes = image_sizes(self._processor, conversation.media.get("image", []))
            transfers = [transfer(*sizes[item.index]) for item in placed]
        except REFUSALS as error:
            said = f"an image that one of the two models does not take: {error}"
            raise GuideError(Reason.GUIDE_REFUSED, said) from error
        for one, item in zip(transfers, placed, strict=True):
            if one.target.visual_tokens == item.visual_tokens:
                continue
            if conversation.processor_kwargs:
                raise Unguidable(Reason.OTHER_TILING)
            if conversation.named:
                raise GuideError(
                    Reason.GUIDE_REFUSED,
                    f"expected an image of {item.visual_tokens} visual tokens under its uuid, received one "
                    f"of {one.target.visual_tokens}: another image had the uuid before",
                )
            raise GuideError(
                Reason.GUIDE_FAILED,
                f"expected {one.target.visual_tokens} visual tokens for an image of "
                f"{sizes[item.index]} pixels, the prompt has {item.visual_tokens}: adapt layout_of() of the "
                "large model's family in vllm_sgl/families/",
            )
        return transfers

    def _transfer(self, settings: Mapping[str, Any]) -> TransferOf:
        """Under settings that clients repeat; the latest few are kept."""
        key = repr(sorted(settings.items()))
        found = self._known.get(key)
        if found is None:
            try:
                found = self._known[key] = self._transfers_of(settings)
            except (TypeError, ValueError) as error:
                raise Unguidable(Reason.OTHER_TILING) from error
        self._known.move_to_end(key)
        while len(self._known) > _SETTINGS:
            self._known.popitem(last=False)
        return found

    def _carried(
        self, request: GuideRequest, result: GuideResult, transfers: Sequence[Transfer]
    ) -> list[torch.Tensor]:
        """Per image of the large model's prompt; the small model's own may have them in another order."""
        assert isinstance(result, TranslatedResult), "the result of a guide that renders for itself"
        own = placed_items(result.asked.prompt)
        seen = {
            (item.modality, item.index): importance
            for item, importance in zip(own, result.importance, strict=True)
        }
        items = placed_items(request.prompt)
        try:
            return [
                transfer.importance(seen[item.modality, item.index], self._views)
                for item, transfer in zip(items, transfers, strict=True)
            ]
        except ValueError as error:
            raise GuideError(
                Reason.GUIDE_FAILED, f"{error}: adapt layout_of() of its family in vllm_sgl/families/"
            ) from error
