"""Renders a prompt that vLLM rendered for one model once more, for another model."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from vllm.config import ModelConfig
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import mm_input
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import (
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)
from vllm.multimodal.parse import ImageProcessorItems
from vllm.renderers import ChatParams

from vllm_sgl.host.patch import check_signature
from vllm_sgl.host.render import dummy_prompts
from vllm_sgl.host.render.conversation import Conversation

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.renderers.base:BaseRenderer.default_chat_tok_params",
    "vllm.renderers.base:BaseRenderer.get_mm_processor",
    "vllm.renderers.base:BaseRenderer.tokenize_prompt_async(prompt, params)",
    "vllm.renderers.base:BaseRenderer.shutdown",
    "vllm.multimodal.processing.processor:BaseMultiModalProcessor.info.parse_mm_data(mm_data)",
    "vllm.multimodal.processing.processor:BaseMultiModalProcessor.dummy_inputs.get_dummy_text(mm_counts)",
    "vllm.multimodal.processing.processor:BaseMultiModalProcessor._postprocess_prompt(prompt)",
    "vllm.multimodal.processing.processor:BaseMultiModalProcessor._get_mm_prompt_updates"
    "(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)",
    "vllm.multimodal.processing.processor:BaseMultiModalProcessor._apply_prompt_updates"
    "(token_ids, mm_prompt_updates)",
)

#: What vLLM's renderers, chat templates and processors raise over one conversation or image that they do not
#: take: a RuntimeError or an AssertionError where a template leaves an image out. Others are mistakes in a
#: program.
REFUSALS = (VLLMClientError, ValueError, ArithmeticError, LookupError, RuntimeError, AssertionError)
#: Where a part of a message keeps its image or video.
_MEDIA_KEYS = ("image_url", "image_pil", "video_url")
#: Marks an item as known to vLLM, which then fetches nothing.
_NAMED = "sgl"
_PROCESSOR_METHODS = ("_postprocess_prompt", "_get_mm_prompt_updates", "_apply_prompt_updates")
#: Width and height of an image that is cut into several tiles where a model cuts images.
_PROBE_SIZE = (960, 480)
_WORD = "quince"


def processor_of(model: ModelConfig) -> Any:
    """A model's multi-modal processor, from its files."""
    return MULTIMODAL_REGISTRY.create_processor(model)


def own_values(large: Any, small: Any) -> dict[str, MultiModalFieldElem] | None:
    """Whether an image that one model's processor has made serves the other model too.

    Both processors are given the same image.

    Args:
        large, small: the models' multi-modal processors.

    Returns:
        the fields of an item in which the small model has a value of its own (token ids), or None where the
        pixels differ.
    """
    ours, theirs = (_probe_item(processor) for processor in (large, small))
    if ours.keys() != theirs.keys():
        return None
    different = {name: theirs[name] for name in ours if not _equal(ours[name].data, theirs[name].data)}
    return different if all(name.endswith("_token_id") for name in different) else None


def place_of_image(processor: Any, width: int, height: int) -> PlaceholderRange:
    """Where a processor puts an image of this size in a prompt that is about nothing else."""
    return _process(processor, width, height)["mm_placeholders"]["image"][0]


def image_sizes(processor: Any, images: list[Any]) -> list[tuple[int, int]]:
    """Width and height of each image, in whatever form vLLM takes it.

    Args:
        processor: any model's multi-modal processor.
    """
    items = processor.info.parse_mm_data({"image": images}).get_items("image", ImageProcessorItems)
    sizes = (items.get_image_size(index) for index in range(len(items)))
    return [(size.width, size.height) for size in sizes]


def left_out(renderer: Any) -> set[str]:
    """What a model's own chat template leaves out of a conversation: "system messages", "tools"."""
    tool = {"type": "function", "function": {"name": _WORD, "parameters": {"type": "object"}}}
    asked = {"role": "user", "content": "What is this?"}
    conversations = {
        "system messages": ([{"role": "system", "content": f"Say {_WORD}."}, asked], None),
        "tools": ([asked], [tool]),
    }
    return {
        what
        for what, (messages, tools) in conversations.items()
        if _WORD not in _text(renderer, messages, tools)
    }


class SecondRenderer:
    """
    Args:
        renderer: the small model's.
        own: as :func:`own_values` returns it: None processes the media once more, for the small model.
    """

    def __init__(self, renderer: Any, own: Mapping[str, MultiModalFieldElem] | None) -> None:
        self._renderer = renderer
        self._own = own
        tokenizing = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
        # The caller decides whether a prompt is too long.
        self._tokenizing = replace(tokenizing, max_total_tokens=None)
        processor = renderer.get_mm_processor()
        for name in _PROCESSOR_METHODS:
            check_signature(processor, name, (), "vllm_sgl/host/render/small_prompt.py")

    async def render(self, conversation: Conversation, large: Any) -> Any:
        """The small model's prompt, a ``MultiModalInput``.

        Args:
            large: the same conversation as rendered for the large model; its media keep their names, so
                that what is cached under them is found.
        """
        params = replace(
            conversation.params,
            chat_template=None,
            chat_template_content_format="auto",
            chat_template_kwargs={
                **{k: v for k, v in conversation.params.chat_template_kwargs.items() if k != "chat_template"},
                "tokenize": False,
            },
        )
        _, prompt = await self._renderer.render_messages_async(_unfetched(conversation.messages), params)
        prompt = await self._renderer.tokenize_prompt_async(prompt, self._tokenizing)
        if self._own is not None:
            return self._with_pixels(prompt["prompt_token_ids"], conversation, large, self._own)
        prompt = {**prompt, "multi_modal_data": conversation.media}
        prompt["mm_processor_kwargs"] = dict(conversation.processor_kwargs)
        prompt.pop("multi_modal_uuids", None)
        rendered = await self._renderer.process_for_engine_async(
            prompt, time.time(), skip_mm_cache=True, tok_params=self._tokenizing
        )
        return {**rendered, "mm_hashes": large["mm_hashes"]}

    def _with_pixels(
        self, ids: list[int], conversation: Conversation, large: Any, own: Mapping[str, MultiModalFieldElem]
    ) -> Any:
        processor = self._renderer.get_mm_processor()
        items = {
            modality: [MultiModalKwargsItem({**item, **own}) for item in of]
            for modality, of in large["mm_kwargs"].items()
        }
        kwargs = MultiModalKwargsItems(items)
        media = processor.info.parse_mm_data(conversation.media)
        updates = processor._get_mm_prompt_updates(media, conversation.processor_kwargs, kwargs)
        ids, places = processor._apply_prompt_updates(processor._postprocess_prompt(ids), updates)
        ranges = {modality: [place.to_range() for place in found] for modality, found in places.items()}
        return mm_input(ids, kwargs, large["mm_hashes"], ranges)


def _probe_item(processor: Any) -> MultiModalKwargsItem:
    """What a processor makes of an image."""
    return _process(processor, *_PROBE_SIZE)["mm_kwargs"]["image"][0]


def _process(processor: Any, width: int, height: int) -> Any:
    """An image of this size alone, as a processor renders it."""
    media = processor.info.parse_mm_data({"image": [dummy_prompts.noise(width, height, seed=0)]})
    text = processor.dummy_inputs.get_dummy_text({"image": 1})
    return processor(text, media)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and one == other


def _text(renderer: Any, messages: list[Any], tools: list[Any] | None) -> str:
    """A conversation without media in a model's template; nothing where the template refuses it."""
    kwargs = {"add_generation_prompt": True, "tokenize": False, "tools": tools}
    try:
        return renderer.render_messages(messages, ChatParams(chat_template_kwargs=kwargs))[1]["prompt"]
    except (ValueError, VLLMClientError):
        return ""


def _unfetched(messages: list[Any]) -> list[Any]:
    """The messages with their images and videos taken out: places are all that rendering needs."""

    def part(value: Any) -> Any:
        key = next((k for k in _MEDIA_KEYS if k in value), None) if isinstance(value, dict) else None
        return value if key is None else {"type": value.get("type", key), key: None, "uuid": _NAMED}

    return [
        {**message, "content": [part(value) for value in message["content"]]}
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        else message
        for message in messages
    ]
