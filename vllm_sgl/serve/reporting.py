"""The ``sgl`` object in a response's body, or in a chunk of a stream.

One request to the engine: one object at the top. Several, for the prompts of ``/v1/completions`` or the
conversations of ``/v1/chat/completions/batch``: one in each choice, that of the prompt that it answers.
"""

import json
from typing import Any

from vllm_sgl.engine.asked import Asked, EngineRequest


def report_object(about: Asked) -> dict[str, Any] | None:
    """What stands at the top of a response; None where nothing was decided."""
    return None if about.report is None else dict(about.report.as_dict())


def in_body(body: bytes, about: Asked) -> bytes:
    """A whole JSON body with its report, or reports."""
    if len(about.requests) > 1 and b'"choices":[' in body:
        answer = json.loads(body)
        choices, by_choice = answer.get("choices", ()), _by_choice(about)
        if len(choices) == len(by_choice):
            # In the order of the prompts; a choice's own index may be that of its prompt.
            for choice, made in zip(choices, by_choice, strict=True):
                _add(choice, made)
            return _dumped(answer)
    return at_top(body, about)


def at_top(body: bytes, about: Asked) -> bytes:
    """The body with one report spliced in before its closing brace; every other byte stays."""
    end = body.rstrip()
    report = report_object(about)
    if report is None or not end.endswith(b"}"):
        return body
    comma = b"" if end[:-1].rstrip().endswith(b"{") else b","
    return end[:-1] + comma + b'"sgl":' + _dumped(report) + b"}" + body[len(end) :]


def is_shared(chunk: bytes, about: Asked) -> bool:
    """Whether a stream's chunk belongs to one of several prompts."""
    return len(about.requests) > 1 and b'"choices":[' in chunk


def in_shared_stream(chunk: bytes, about: Asked) -> bytes:
    """The chunk with a report in each choice that ends here."""
    return b"\n".join(_in_line(line, about) for line in chunk.split(b"\n"))


def _in_line(line: bytes, about: Asked) -> bytes:
    prefix, mark, data = line.partition(b"data: ")
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
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
