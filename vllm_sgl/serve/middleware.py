"""ASGI middleware: reads what an engine request does not show, and adds the ``sgl`` object to responses.

Added through vLLM's own ``--middleware`` hook. Nothing is parsed but requests that mention tools, beam
search or token ids, and responses to several prompts at once.
"""

from typing import Any

from vllm_sgl.engine import asked
from vllm_sgl.serve.reading import read_body
from vllm_sgl.serve.reporting import at_top, in_body, in_shared_stream, is_shared

#: An ASGI event, or the scope of a connection.
Message = dict[str, Any]

#: Prompts come here as tokens, and whoever made them knows whether they offer tools.
_TOKENS = "/inference/v1/generate"
#: Anything that ends a stream, in vLLM's chat, completion, Responses and Messages formats.
_LAST_MARKS = (b'"finish_reason":"', b'"choices":[]', b"response.completed", b"message_stop")


class SGLMiddleware:
    """One per app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "POST":
            about = asked.Asked(seen=not scope["path"].endswith(_TOKENS))
            asked.current.set(about)
            await self._app(scope, _Reading(receive, about), _Reporting(send, about))
        elif scope["path"].endswith("/health"):
            await self._app(scope, receive, _telling_health(scope, send))
        else:
            await self._app(scope, receive, send)


class _Reading:
    """``receive`` that notes what the body asks for."""

    def __init__(self, receive: Any, about: asked.Asked) -> None:
        self._receive = receive
        self._about = about
        self._chunks: list[bytes] = []

    async def __call__(self) -> Message:
        message: Message = await self._receive()
        if message["type"] == "http.request":
            self._chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                read_body(b"".join(self._chunks), self._about)
                self._chunks.clear()
        return message


class _Reporting:
    """``send`` that adds the report to a JSON body, or to the last chunk of a stream."""

    def __init__(self, send: Any, about: asked.Asked) -> None:
        self._send = send
        self._about = about
        self._kind: str | None = None
        self._start: Message = {}
        self._held: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] == "http.response.body" and self._kind == "json":
            await self._json(message)
        elif message["type"] == "http.response.body" and self._kind == "stream":
            await self._stream(message)
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        kinds = {b"application/json": "json", b"text/event-stream": "stream"}
        content = dict(message["headers"]).get(b"content-type", b"").partition(b";")[0].strip()
        if message["status"] == 200:
            self._kind = kinds.get(content)
        if self._kind == "json":
            self._start = message  # its content-length is not known yet
        else:
            await self._send(message)

    async def _json(self, message: Message) -> None:
        self._held.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = in_body(b"".join(self._held), self._about)
        headers = [h for h in self._start["headers"] if h[0].lower() != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send({**self._start, "headers": headers})
        await self._send({**message, "body": body})

    async def _stream(self, message: Message) -> None:
        body = message.get("body", b"")
        if is_shared(body, self._about):
            await self._send({**message, "body": in_shared_stream(body, self._about)})
            return
        if self._held and body.strip() not in (b"", b"data: [DONE]"):
            await self._release(splice=False)
        if any(mark in body for mark in _LAST_MARKS):
            self._held.append(body)
            if message.get("more_body", False):
                return
            body = b""
        await self._release(splice=True)
        await self._send({**message, "body": body})

    async def _release(self, splice: bool) -> None:
        """Send the held chunk: it was the last one, or another one came after it."""
        if not self._held:
            return
        chunk, self._held = b"".join(self._held), []
        body = at_top(chunk, self._about) if splice else chunk
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


def _telling_health(scope: Message, send: Any) -> Any:
    """The server is healthy without its guide; headers tell that, and whether answers are a shadow's."""

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            engine = getattr(scope["app"].state, "engine_client", None)
            alive = getattr(engine, "guide_alive", False)
            shadow = getattr(getattr(engine, "sgl_config", None), "shadow", False)
            ours = [(b"sgl-guide", b"up" if alive else b"down"), (b"sgl-shadow", b"on" if shadow else b"off")]
            message = {**message, "headers": [*message["headers"], *ours]}
        await send(message)

    return send_with_header
