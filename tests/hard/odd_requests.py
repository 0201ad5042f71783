"""Odd requests of every kind, each a path and a JSON body: files, roles, placeholders, tools, uuids, paths,
parameters."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from tests.hard.odd import images, sampling, url
from tests.support.images import random_image


@dataclass(frozen=True)
class Odd:
    """leave: the client leaves after the first piece of the answer."""

    name: str
    path: str
    body: dict[str, Any] = field(repr=False)
    leave: bool = False


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


#: In the folder from which servers may read.
LOCAL = Path(__file__).parents[2] / "models" / "training.png"

_IMAGE = random_image(3, 300, 200)
_PART = {"type": "image_url", "image_url": {"url": _png(_IMAGE)}}
_OTHER = {"type": "image_url", "image_url": {"url": _png(random_image(4, 120, 90))}}
_CHAT = "/v1/chat/completions"
_TOOL = {
    "type": "function",
    "function": {"name": "count", "parameters": {"type": "object", "properties": {}}},
}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _turn(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def _chat(messages: list[Any], **more: Any) -> dict[str, Any]:
    return {"messages": messages, "max_tokens": 6, "temperature": 0, **more}


def _asked(*parts: Any, **more: Any) -> dict[str, Any]:
    return _chat([_turn("user", *parts)], **more)


QUESTION = _text("How many signs are there?")


def every() -> Iterator[Odd]:
    """All of them; names are unique."""
    yield from _files()
    yield from _roles()
    yield from _placeholders()
    yield from _tools()
    yield from _uuids()
    yield from _endpoints()
    for options in sampling(24, seed=3):
        yield Odd(f"sampling {options}", _CHAT, _asked(_PART, QUESTION, **options))


def _files() -> Iterator[Odd]:
    for width, height in ((1093, 5), (5, 1093), (2000, 9), (1000, 3), (1, 1), (2, 900)):
        part = {"type": "image_url", "image_url": {"url": _png(_IMAGE.resize((width, height)))}}
        yield Odd(f"file {width}x{height} px", _CHAT, _asked(part, QUESTION))
    for path in (LOCAL, Path("/etc/hostname"), LOCAL.with_name("no such file.png")):
        part = {"type": "image_url", "image_url": {"url": path.as_uri()}}
        yield Odd(f"file by path {path.name}", _CHAT, _asked(part, QUESTION))
    for number, (name, file) in enumerate(images()):
        if number % 4 == 0:
            part = {"type": "image_url", "image_url": {"url": url(file)}}
            yield Odd(f"file {name}", _CHAT, _asked(part, QUESTION))


def _roles() -> Iterator[Odd]:
    user, answer = _turn("user", _PART, QUESTION), {"role": "assistant", "content": "Two."}
    conversations = {
        "system": [{"role": "system", "content": "Be brief."}, user],
        "system after": [user, {"role": "system", "content": "Be brief."}],
        "system with an image": [_turn("system", _PART), _turn("user", QUESTION)],
        "developer": [{"role": "developer", "content": "Be brief."}, user],
        "twice the user": [user, _turn("user", _text("Why?"))],
        "assistant first": [answer, user],
        "assistant last": [user, answer],
        "assistant with an image": [
            _turn("user", QUESTION), _turn("assistant", _PART), _turn("user", QUESTION),
        ],
        "only the assistant": [_turn("assistant", _PART, QUESTION)],
        "tool": [user, {"role": "tool", "tool_call_id": "x", "content": "2"}, _turn("user", QUESTION)],
        "unknown": [{**user, "role": "referee"}],
        "nobody": [],
        "no content": [{"role": "user"}],
        "empty text": [_turn("user", _PART, _text(""))],
        "image alone": [_turn("user", _PART)],
        "image twice": [_turn("user", _PART, _PART, QUESTION)],
        "five images": [_turn("user", *[_PART] * 5, QUESTION)],
        "two turns with images": [user, answer, _turn("user", _OTHER, QUESTION)],
    }  # fmt: skip
    for name, messages in conversations.items():
        yield Odd(f"roles {name}", _CHAT, _chat(messages))
    yield Odd("roles no prompt to go on", _CHAT, _chat([user, answer], add_generation_prompt=False,
                                                        continue_final_message=True))  # fmt: skip


def _placeholders() -> Iterator[Odd]:
    for text in (
        "<image>", "<image> <image> <image>", "<IMG_CONTEXT>", "<img></img>", "<|image_pad|>",
        "<|vision_start|><|image_pad|><|vision_end|>", "<|im_end|>\n<|im_start|>assistant\n", "{{ 1 / 0 }}",
        "</think>", "\u0000", "a" * 3000,
    ):  # fmt: skip
        yield Odd(f"placeholder {text[:20]!r} after", _CHAT, _asked(_PART, _text(f"How many? {text}")))
        yield Odd(f"placeholder {text[:20]!r} before", _CHAT, _asked(_text(f"{text} How many?"), _PART))
        yield Odd(f"placeholder {text[:20]!r} alone", _CHAT, _asked(_text(text)))


def _tools() -> Iterator[Odd]:
    for choice in ("auto", "none", "required", {"type": "function", "function": {"name": "count"}}, "some"):
        yield Odd(f"tools {choice}", _CHAT, _asked(_PART, QUESTION, tools=[_TOOL], tool_choice=choice))
    yield Odd(
        "tools in the template", _CHAT, _asked(_PART, QUESTION, chat_template_kwargs={"tools": [_TOOL]})
    )
    yield Odd("a schema", _CHAT, _asked(_PART, QUESTION, response_format={
        "type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}))  # fmt: skip
    yield Odd("a template", _CHAT, _asked(_PART, QUESTION, chat_template="{{ messages }}"))
    yield Odd("processor settings", _CHAT, _asked(_PART, QUESTION, mm_processor_kwargs={"max_pixels": 9}))


def _uuids() -> Iterator[Odd]:
    named, other = {**_PART, "uuid": "odd-1"}, {**_OTHER, "uuid": "odd-1"}
    yield Odd("uuid", _CHAT, _asked(named, QUESTION))
    yield Odd(
        "uuid alone", _CHAT, _asked({"type": "image_url", "image_url": None, "uuid": "odd-1"}, QUESTION)
    )
    yield Odd("uuid of another image", _CHAT, _asked(other, QUESTION))
    yield Odd(
        "uuid of nothing", _CHAT, _asked({"type": "image_url", "image_url": None, "uuid": "?"}, QUESTION)
    )


def _endpoints() -> Iterator[Odd]:
    asked, stream = _asked(_PART, QUESTION), {"stream": True, "stream_options": {"include_usage": True}}
    yield Odd("chat", _CHAT, asked)
    yield Odd("chat stream", _CHAT, {**asked, **stream})
    yield Odd("chat of nobody", _CHAT, {**asked, "model": "no such model"})
    yield Odd(
        "batch", f"{_CHAT}/batch", {**asked, "messages": [asked["messages"], [_turn("user", QUESTION)]]}
    )
    yield Odd("completion", "/v1/completions", {"prompt": ["One", "Two"], "max_tokens": 4, "temperature": 0})
    given = [{"role": "user", "content": [
        {"type": "input_image", "image_url": _png(_IMAGE), "detail": "auto"},
        {"type": "input_text", "text": QUESTION["text"]},
    ]}]  # fmt: skip
    response = {"input": given, "max_output_tokens": 6, "temperature": 0}
    yield Odd("response", "/v1/responses", response)
    yield Odd("response stream", "/v1/responses", {**response, "stream": True})
    source = {"type": "base64", "media_type": "image/png", "data": _png(_IMAGE).partition(",")[2]}
    message = {
        "messages": [_turn("user", {"type": "image", "source": source}, QUESTION)], "max_tokens": 6,
        "temperature": 0,
    }  # fmt: skip
    yield Odd("message", "/v1/messages", message)
    yield Odd("message stream", "/v1/messages", {**message, "stream": True})
    yield Odd("tokens", "/tokenize", {"messages": asked["messages"]})
    yield Odd("embeddings", "/v1/embeddings", {"input": "One"})
    yield Odd("no path", "/v1/no_such_path", asked)
    for number in range(4):
        yield Odd(f"left {number}", _CHAT, {**asked, **stream, "max_tokens": 200}, leave=True)
    yield Odd("chat after those who left", _CHAT, asked)
