"""ASGI middleware: notes what an engine request does not show, and adds the ``sgl`` object to responses.

Added through vLLM's own ``--middleware`` hook. Nothing is parsed but requests that mention tools, beam
search or token ids, responses to several prompts at once, and one event of a Responses or Messages stream.
A response that is fetched again has its report, too.
"""

from typing import Any

from vllm_sgl.request import client_request
from vllm_sgl.serve.reading import own_headers, read_body
from vllm_sgl.serve.sending import Message, Reporting
from vllm_sgl.serve.stored import Stored
from vllm_sgl.telemetry.metrics import metrics

#: Prompts come here as tokens, so only the client knows whether they offer tools.
_TOKENS = "/inference/v1/generate"


class SGLMiddleware:
    """One per app."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._stored = Stored()

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] == "POST":
            headers = own_headers(scope.get("headers", ()))
            about = client_request.Asked(seen=not scope["path"].endswith(_TOKENS), headers=headers)
            client_request.current.set(about)
            reporting = Reporting(send, about)
            noting = self._stored.noting(scope["path"], reporting, about)
            try:
                await self._app(scope, _Reading(receive, about), noting)
            except Exception:
                if about.failure is None or not await reporting.fail(about.failure):
                    raise
        elif (stored := self._stored.asked(scope["path"])) is not None:
            await self._app(scope, receive, Reporting(send, stored))
        elif scope["path"].endswith("/health"):
            await self._app(scope, receive, _telling_health(scope, send))
        else:
            if scope["path"].rstrip("/").endswith("/metrics"):
                metrics().refresh()
            await self._app(scope, receive, send)


class _Reading:
    """An ASGI ``receive`` that notes the settings in the body."""

    def __init__(self, receive: Any, about: client_request.Asked) -> None:
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
