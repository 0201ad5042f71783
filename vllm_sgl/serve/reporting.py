"""The ``sgl`` object in a response's body, or in chunks of a stream.

One request to the engine: one object at the top. A stream has it on its last chunk, and where SDKs that put
a stream together keep it: on the first chunk of a chat or completion, in ``message`` of ``message_start``, in
``response`` of ``response.completed``.

Several, for the prompts of ``/v1/completions`` or the conversations of ``/v1/chat/completions/batch``: one in
each choice, that of the prompt that it answers. Where there is not a choice for each prompt, as in the scores
of ``/generative_scoring``, the body stays as it is.
"""

import json
from typing import Any

from vllm_sgl.core import Report
from vllm_sgl.request.client_request import Asked, EngineRequest

_DATA, _CHOICES = b"data: ", b'"choices":['
#: Events of a stream that carry a whole message or response, and the name under which they do. Quotes inside
#: of a text are escaped, so none is mistaken for one.
_ENVELOPES = {b'"type":"message_start"': "message", b'"type":"response.completed"': "response"}


def report_object(about: Asked) -> dict[str, Any] | None:
    """What stands at the top of a response; None where nothing was decided."""
    return None if about.report is None else dict(about.report.as_dict())


def in_body(body: bytes, about: Asked) -> tuple[bytes, list[Report | None]]:
    """A whole JSON body with its report, or reports; and these."""
    if not about.several:
        return at_top(body, about), [about.report]
    if _CHOICES in body:
        answer = json.loads(body)
        choices, by_choice = answer.get("choices", ()), _by_choice(about)
        if len(choices) == len(by_choice):
            # In the order of the prompts; a choice's own index may be that of its prompt.
            for choice, made in zip(choices, by_choice, strict=True):
                _add(choice, made)
            body = _dumped(answer)
    return body, about.reports


def at_top(body: bytes, about: Asked) -> bytes:
    """The body with one report spliced in before its closing brace, unless it is there already; every other
    byte stays."""
    end = body.rstrip()
    report = report_object(about)
    if report is None or not end.endswith(b"}"):
        return body
    added = b'"sgl":' + _dumped(report) + b"}"
    if end.endswith(added):
        return body
    comma = b"" if end[:-1].rstrip().endswith(b"{") else b","
    return end[:-1] + comma + added + body[len(end) :]


def in_first(chunk: bytes, about: Asked) -> bytes:
    """The first chunk of a stream, with the report where it is one of a chat or a completion."""
    return at_top(chunk, about) if _CHOICES in chunk and not is_shared(chunk, about) else chunk


def in_envelope(chunk: bytes, about: Asked) -> bytes:
    """The chunk with its report inside the message or response that it carries whole, if it does."""
    if about.report is None or not any(mark in chunk for mark in _ENVELOPES):
        return chunk
    return b"\n".join(_in_envelope(line, about) for line in chunk.split(b"\n"))


def _in_envelope(line: bytes, about: Asked) -> bytes:
    prefix, mark, data = line.partition(_DATA)
    name = next((name for kind, name in _ENVELOPES.items() if kind in data), None)
    if not mark or name is None:
        return line
    event = json.loads(data)
    event[name]["sgl"] = report_object(about)
    return prefix + mark + _dumped(event)


def is_shared(chunk: bytes, about: Asked) -> bool:
    """Whether a stream's chunk belongs to several prompts."""
    return about.several and _CHOICES in chunk


def in_shared_stream(chunk: bytes, about: Asked) -> bytes:
    """The chunk with a report in each choice that ends here."""
    return b"\n".join(_in_line(line, about) for line in chunk.split(b"\n"))


def _in_line(line: bytes, about: Asked) -> bytes:
    prefix, mark, data = line.partition(_DATA)
    if not mark or b'"finish_reason":"' not in data:
        return line
    event = json.loads(data)
    by_choice = _by_choice(about)
    for choice in event["choices"]:
        if choice["finish_reason"] is not None:
            _add(choice, by_choice[choice["index"]])
    return prefix + mark + _dumped(event)


def _by_choice(about: Asked) -> list[EngineRequest]:
    """The engine request of each choice, prompt by prompt."""
    return [made for made in about.requests for _ in range(made.choices)]


def _add(choice: dict[str, Any], made: EngineRequest) -> None:
    if made.report is not None:
        choice["sgl"] = made.report.as_dict()


def _dumped(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
