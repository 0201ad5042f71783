"""ASGI ``send`` that adds the report to a response: as headers, and in the body.

Headers wait for the first chunk of the body, because that is when the report is known. Only the
last chunk is held until the stream ends, because only then is it known to be the last.
"""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from vllm_sgl.core import Report
from vllm_sgl.request.client_request import Asked
from vllm_sgl.serve.headers import report_headers
from vllm_sgl.serve.reporting import at_top, in_body, in_envelope, in_first, in_shared_stream, is_shared

#: An ASGI event, or the scope of a connection.
Message = dict[str, Any]

_KINDS = {b"application/json": "json", b"text/event-stream": "stream"}
#: Anything that ends a stream, in vLLM's chat, completion, Responses and Messages formats.
_LAST_MARKS = (b'"finish_reason":"', b'"choices":[]', b"response.completed", b"message_stop")


_NUMBER = re.compile(rb'"sequence_number":(\d+)')


class Reporting:
    """The ``send`` of one response; errors and other kinds of content pass through."""

    def __init__(self, send: Any, about: Asked) -> None:
        self._send = send
        self._about = about
        self._kind: str | None = None
        self._start: Message | None = None
        self._parts: list[bytes] = []  # of a JSON body
        self._held: list[bytes] = []  # of a stream: what may be its last chunk
        self._number = -1  # of the last event of a Responses stream

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] == "http.response.body" and self._kind == "json":
            await self._json(message)
        elif message["type"] == "http.response.body" and self._kind == "stream":
            await self._stream(message)
        else:
            await self._open([])
            await self._send(message)

    async def fail(self, error: Exception) -> bool:
        """End a Responses stream that has begun with an event that says why, so that the connection stays;
        whether it is one. vLLM 0.32 cannot write that event, and breaks the connection: its other streams
        end well."""
        if self._start is not None or self._number < 0:
            return False
        event = {
            "type": "error", "code": str(int(HTTPStatus.SERVICE_UNAVAILABLE)), "message": str(error),
            "param": None, "sequence_number": self._number + 1,
        }  # fmt: skip
        body = b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
        return True

    async def _begin(self, message: Message) -> None:
        content = dict(message["headers"]).get(b"content-type", b"").partition(b";")[0].strip()
        if message["status"] == 200:
            self._kind = _KINDS.get(content)
        self._start = message
        if self._kind is None:
            await self._open([])

    async def _open(self, reports: Sequence[Report | None], length: int | None = None) -> None:
        """Send the start of the response, unless that is done. length: of a body that has changed."""
        if self._start is None:
            return
        start, self._start = self._start, None
        headers = [*start["headers"], *report_headers(reports)]
        if length is not None:
            headers = [header for header in headers if header[0].lower() != b"content-length"]
            headers.append((b"content-length", str(length).encode()))
        await self._send({**start, "headers": headers})

    async def _json(self, message: Message) -> None:
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body, reports = in_body(b"".join(self._parts), self._about)
        await self._open(reports, len(body))
        await self._send({**message, "body": body})

    async def _stream(self, message: Message) -> None:
        body = message.get("body", b"")
        if number := _NUMBER.search(body):
            self._number = int(number[1])
        if self._start is not None:
            # So far several requests of the engine are several prompts: rounds of an answer come later.
            await self._open(self._about.reports)
            body = in_first(body, self._about)
        if is_shared(body, self._about):
            await self._send({**message, "body": in_shared_stream(body, self._about)})
            return
        if self._held and body.strip() not in (b"", b"data: [DONE]"):
            await self._release(last=False)
        body = in_envelope(body, self._about)
        if any(mark in body for mark in _LAST_MARKS):
            self._held.append(body)
            if message.get("more_body", False):
                return
            body = b""
        await self._release(last=True)
        await self._send({**message, "body": body})

    async def _release(self, last: bool) -> None:
        """Send the held chunk: it was the last one, or another one came after it."""
        if not self._held:
            return
        chunk, self._held = b"".join(self._held), []
        body = at_top(chunk, self._about) if last else chunk
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
