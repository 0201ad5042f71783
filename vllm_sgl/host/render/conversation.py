"""vLLM's renderer: the conversation behind a rendered prompt.

Symptom without it: a rendered prompt is in the tokens of one model, and the messages that it was made of
are gone by the time an engine client sees it. Everything that has messages (chat, streamed and batched,
Responses, Messages, ``LLM.chat``) is rendered by one renderer in two steps, so both are wrapped on that one
object: the first puts the messages on the prompt, the second hands them on with the fetched media. Remove
when vLLM keeps the conversation of an engine input.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vllm.config import VllmConfig
from vllm.renderers import ChatParams, renderer_from_config

from vllm_sgl.host.patch import check_signature

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.renderers.base:BaseRenderer.render_messages(messages, params)",
    "vllm.renderers.base:BaseRenderer.render_messages_async(messages, params)",
    "vllm.renderers.base:BaseRenderer.process_for_engine(prompt, arrival_time)",
    "vllm.renderers.base:BaseRenderer.process_for_engine_async(prompt, arrival_time)",
)

#: The key of a prompt, and of what an engine is given, that holds its :class:`Conversation`.
_KEY = "sgl_conversation"
_FIX = "vllm_sgl/host/render/conversation.py"


@dataclass(frozen=True)
class Conversation:
    """What a prompt was rendered from.

    messages: as the client sent them. params: for the chat template.
    media: by modality, fetched and decoded; an item is None where the client only named a known one.
    processor_kwargs: of the request, for the media's processor.
    named: whether the client named some of them (``uuid``): of an item that it named before, the rendered
        prompt has the pixels of that time.
    """

    messages: list[Any]
    params: ChatParams
    media: Mapping[str, list[Any]] = field(default_factory=dict)
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False

    @property
    def whole(self) -> bool:
        """Whether all media are here."""
        return all(item is not None for items in self.media.values() for item in items)


def conversation_of(prompt: Mapping[str, Any]) -> Conversation | None:
    """The conversation of a rendered prompt; None where it was rendered from something else."""
    return prompt.get(_KEY)


def attach(prompt: dict[str, Any], conversation: Conversation) -> None:
    """Attach a conversation to a rendered prompt."""
    prompt[_KEY] = conversation


def renderer_of(config: VllmConfig) -> Any:
    """A renderer for an engine's model, with threads of its own; to be ended with ``shutdown()``."""
    return renderer_from_config(config)


def remember_conversations(renderer: Any) -> None:
    """Make a renderer's prompts with media carry their conversations; no class is changed.

    Raises:
        RuntimeError: if a method is missing or takes other parameters.
    """
    for name, parameters, wrapped in (
        ("render_messages", ("messages", "params"), _noting),
        ("render_messages_async", ("messages", "params"), _noting_async),
        ("process_for_engine", ("prompt", "arrival_time"), _carrying),
        ("process_for_engine_async", ("prompt", "arrival_time"), _carrying_async),
    ):
        method = check_signature(renderer, name, parameters, _FIX)
        setattr(renderer, name, functools.wraps(method)(wrapped(method)))


def _noting(render: Callable) -> Callable:
    def render_messages(messages, params):
        messages = _lasting(messages)
        return _noted(render(messages, params), messages, params)

    return render_messages


def _noting_async(render: Callable) -> Callable:
    async def render_messages_async(messages, params):
        messages = _lasting(messages)
        return _noted(await render(messages, params), messages, params)

    return render_messages_async


def _carrying(process: Callable) -> Callable:
    def process_for_engine(prompt, arrival_time, **kwargs):
        return _carried(prompt, process(prompt, arrival_time, **kwargs))

    return process_for_engine


def _carrying_async(process: Callable) -> Callable:
    async def process_for_engine_async(prompt, arrival_time, **kwargs):
        return _carried(prompt, await process(prompt, arrival_time, **kwargs))

    return process_for_engine_async


def _noted(result: tuple[Any, Any], messages: list[Any], params: ChatParams) -> tuple[Any, Any]:
    attach(result[1], Conversation(messages, params))
    return result


def _carried(prompt: Mapping[str, Any], rendered: dict[str, Any]) -> dict[str, Any]:
    conversation, media = conversation_of(prompt), prompt.get("multi_modal_data")
    if conversation is not None and media:
        kwargs = prompt.get("mm_processor_kwargs") or {}
        uuids = (prompt.get("multi_modal_uuids") or {}).values()
        named = any(name is not None for of in uuids for name in ([of] if isinstance(of, str) else of or ()))
        attach(rendered, replace(conversation, media=media, processor_kwargs=kwargs, named=named))
    return rendered


def _lasting(messages: list[Any]) -> list[Any]:
    """The messages in a form that can be read twice: validation leaves one-shot iterators in some."""

    def lasting(value: Any) -> Any:
        return list(value) if isinstance(value, Iterator) else value

    return [
        {key: lasting(value) for key, value in message.items()} if isinstance(message, dict) else message
        for message in messages
    ]
