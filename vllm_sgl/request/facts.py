"""Reads an engine request once: what the decision and the guide need to know about it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

from vllm import SamplingParams
from vllm.config import ModelConfig
from vllm.exceptions import VLLMValidationError

from vllm_sgl.core import Facts, Reason, RenderedPrompt, VisualItem
from vllm_sgl.families.base import Family
from vllm_sgl.request.client_request import Asked
from vllm_sgl.request.exit_rules import other_parameters
from vllm_sgl.visual.fields import FIELDS
from vllm_sgl.visual.items import Placed, modalities, placed_items
from vllm_sgl.visual.tiles import Encoded, Tiles


class FactsReader:
    """Reads requests of one large model.

    Args:
        max_model_len: the large model's context. Prompt and answer must fit it unpruned, because kept tokens
            keep their positions; a prompt that does not is left to vLLM to refuse.
        tiles: as :meth:`vllm_sgl.families.base.Family.tiles`.
        same_tokens: whether the small model's token ids are the large model's.
        exits: False if a feature of the large engine rules out every exit.
        encoded: as :meth:`vllm_sgl.families.base.Family.encoded`.
    """

    def __init__(
        self,
        pixel_fields: Mapping[str, str],
        max_model_len: int,
        tiles: Mapping[str, Tiles] | None = None,
        same_tokens: bool = True,
        exits: bool = True,
        encoded: Mapping[str, Encoded] | None = None,
    ) -> None:
        self._encoded = encoded or {}
        self._pixel_fields = pixel_fields
        self._max_model_len = max_model_len
        self._tiles = tiles or {}
        self._same_tokens = same_tokens
        self._exits = exits

    @classmethod
    def of(
        cls, family: Family, model: ModelConfig, same_tokens: bool = True, exits: bool = True
    ) -> "FactsReader":
        tiles, encoded = family.tiles(model), family.encoded(model)
        return cls(family.pixel_fields, model.max_model_len, tiles, same_tokens, exits, encoded)

    def items(self, prompt: RenderedPrompt) -> tuple[VisualItem, ...]:
        """The images and videos of a prompt, in prompt order."""
        return tuple(self._item(prompt, placed) for placed in placed_items(prompt))

    def check(self, prompt: Any) -> None:
        """Refuse pixels of which the vision encoder would not make what the prompt has places for: an engine
        ends over them, and with it every request that it has. A request's own ``mm_processor_kwargs`` can
        make such pixels, and a prompt that was rendered elsewhere may have lost which of its positions are
        visual tokens. Refuse an item that is a hash alone, over which it ends too, and fields that only the
        rewriter sets.

        Args:
            prompt: what ``AsyncLLM.generate`` was given.

        Raises:
            VLLMValidationError: naming the item, and both numbers or the field.
        """
        if not isinstance(prompt, Mapping) or prompt.get("type") != "multimodal":
            return
        _refuse_unusable(prompt["mm_kwargs"])
        for placed in placed_items(prompt):
            item = prompt["mm_kwargs"][placed.modality][placed.index]
            encoded = self._encoded.get(placed.modality)
            if encoded is None or self._pixel_fields[placed.modality] not in item:
                continue
            given = encoded(item)
            if given not in (None, placed.visual_tokens):
                raise VLLMValidationError(
                    f"{placed.modality} {placed.index}: expected pixels of the {placed.visual_tokens} visual "
                    f"tokens that the prompt has for it, the vision encoder would make {given} of those "
                    "received: drop mm_processor_kwargs that change how the model takes pixels; of a prompt "
                    "that was rendered elsewhere, send the messages"
                )

    def read(self, prompt: Any, params: SamplingParams, asked: Asked, lora: object) -> Facts:
        """Facts of one request.

        Args:
            prompt: what ``AsyncLLM.generate`` was given.
            lora: the request's adapter, None without one.
        """
        reason = self._why_not_ours(prompt)
        if reason not in (None, Reason.IMAGE_EMBEDDINGS) or prompt["type"] != "multimodal":
            return Facts(bypass=_first_asked(asked, params) or reason)
        tokens = len(prompt["prompt_token_ids"])
        room = self._max_model_len - tokens
        if room < 1:
            return Facts(bypass=Reason.TOO_LONG)
        items = self.items(prompt)
        most = room if params.max_tokens is None else min(params.max_tokens, room)
        return Facts(
            visual_tokens=tuple(item.visual_tokens for item in items),
            tiles=sum(item.tiles for item in items),
            items=items,
            prompt_tokens=tokens,
            max_tokens=most,
            forced_tokens=most if params.ignore_eos else params.min_tokens,
            bypass=_first_asked(asked, params) or reason,
            no_exit=_why_no_exit(params, asked, lora, self._same_tokens)
            or (None if self._exits else Reason.SAMPLING),
        )

    def _item(self, prompt: RenderedPrompt, placed: Placed) -> VisualItem:
        whole = VisualItem(placed.modality, placed.visual_tokens, least=placed.least)
        tiles, item = self._tiles.get(placed.modality), prompt["mm_kwargs"][placed.modality][placed.index]
        if tiles is None or item is None or tiles.pixels not in item:
            return whole
        return replace(whole, tile_tokens=tiles.size(item).tokens, rest=tiles.rest)

    def _why_not_ours(self, prompt: Any) -> str | None:
        if isinstance(prompt, AsyncGenerator) or not isinstance(prompt, Mapping) or "type" not in prompt:
            return Reason.UNRENDERED_PROMPT
        if prompt["type"] == "token":
            return Reason.NO_IMAGE
        if prompt["type"] != "multimodal":
            return Reason.IMAGE_EMBEDDINGS if prompt["type"] == "embeds" else Reason.UNSUPPORTED_MODALITY
        found = modalities(prompt)
        if not found:
            return Reason.NO_IMAGE
        if not found <= self._pixel_fields.keys():
            return Reason.UNSUPPORTED_MODALITY
        for modality in found:
            field = self._pixel_fields[modality]
            if any(item is None or field not in item for item in prompt["mm_kwargs"][modality]):
                return Reason.IMAGE_EMBEDDINGS
        return None


def _refuse_unusable(by_modality: Mapping[str, Any]) -> None:
    for modality, items in by_modality.items():
        if any(item is None for item in items):
            # vLLM's engine would have a cache to look it up in.
            raise VLLMValidationError(
                f"{modality}: expected tensors of every item, received the hash of one alone, under which "
                "nothing is kept: send its kwargs_data too"
            )
        own = [name for item in items for name in FIELDS if name in item]
        if own:
            raise VLLMValidationError(
                f"{modality}: expected fields that the model's processor makes, received {own[0]}, which is "
                "set here alone: leave it out"
            )


def _first_asked(asked: Asked, params: SamplingParams) -> str | None:
    if asked.beam_search:
        return Reason.BEAM_SEARCH
    if params.prompt_logprobs is not None or params.prompt_logprob_token_ids is not None:
        return Reason.PROMPT_LOGPROBS
    return None


def _why_no_exit(params: SamplingParams, asked: Asked, lora: object, same_tokens: bool) -> str | None:
    ruled_out = (
        (params.n > 1, Reason.N),
        (params.logprobs is not None or params.logprob_token_ids is not None, Reason.LOGPROBS),
        (asked.tools, Reason.TOOLS),
        (params.structured_outputs is not None, Reason.STRUCTURED_OUTPUT),
        (lora is not None, Reason.LORA),
        (not same_tokens and _is_about_tokens(params, asked), Reason.TOKEN_IDS),
        (bool(other_parameters(params)), Reason.SAMPLING),
        (not asked.seen, Reason.UNSEEN),
    )
    return next((reason for is_so, reason in ruled_out if is_so), None)


def _is_about_tokens(params: SamplingParams, asked: Asked) -> bool:
    """Whether the answer must consist of the large model's own tokens: the request names some, counts them,
    wants to see them, or wants to see special ones."""
    return bool(
        asked.token_ids
        or params.stop_token_ids
        or params.allowed_token_ids
        or params.logit_bias
        or params.min_tokens
        or not params.skip_special_tokens
    )
