"""Made-up apps and clients of the ASGI middleware, and the chunks of their streams."""

import json

from vllm_sgl.core import Report
from vllm_sgl.request import client_request
from vllm_sgl.serve.middleware import SGLMiddleware

REPORT = Report("prune", visual_tokens=112, kept_tokens=39, confidence=0.5)
HEADERS = [
    (b"sgl-decision", b"prune"), (b"sgl-visual", b"112"), (b"sgl-kept", b"39"), (b"sgl-tiles", b"0"),
    (b"sgl-encoded-tiles", b"0"), (b"sgl-reused", b"0"), (b"sgl-late", b"0"), (b"sgl-confidence", b"0.5"),
]  # fmt: skip
SGL = b',"sgl":' + json.dumps(REPORT.as_dict(), separators=(",", ":")).encode() + b"}"
JSON, STREAM = (b"application/json", b"text/event-stream; charset=utf-8")


class App:
    """Reads its whole request, then sends chunks; notes what it saw and when each chunk went out."""

    def __init__(
        self, chunks, *, content=JSON, status=200, report=REPORT, reports=None, headers=(), decides=None,
        rounds=False,
    ):  # fmt: skip
        """reports: (number of choices, report) of each engine request; of one with `report` by default.
        rounds: each is made when the one before it is decided, not all of them together.
        decides: the number of the chunk that it is decided before; before the response starts by default."""
        self.chunks, self.status = chunks, status
        self.reports = [(1, report)] if reports is None else reports
        self.headers = [(b"content-type", content), *headers]
        self.log, self.decides, self.rounds = [], decides, rounds

    async def __call__(self, scope, receive, send):
        more = scope["type"] == "http" and scope["method"] == "POST"
        while more:
            more = (await receive()).get("more_body", False)
        self.about = client_request.current.get()
        if self.about is not None:
            self.made = []
            for choices, _ in self.reports:
                self.made.append(self.about.request(choices))
                if self.rounds:
                    self.decide()
            if self.decides is None:
                self.decide()
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for i, chunk in enumerate(self.chunks):
            self.log.append(("app", i))
            if self.decides == i:
                self.decide()
            more_body = i + 1 < len(self.chunks)
            await send({"type": "http.response.body", "body": chunk, "more_body": more_body})

    def decide(self):
        for made, (_, report) in zip(self.made, self.reports, strict=False):
            made.report = report


async def post(app, *body, method="POST", path="/v1/chat/completions", scope=None, through=None):
    """Messages sent to the client; ``app.log`` has the order of both sides. through: a middleware over the
    app; a new one by default."""
    client_request.current.set(None)
    parts = list(body or (b"{}",))
    sent = []

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        app.log.append(("client", message.get("body")))
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, **(scope or {})}
    await (through or SGLMiddleware(app))(scope, receive, send)
    return sent


def bodies(sent):
    return [message["body"] for message in sent if message["type"] == "http.response.body"]


def header(sent, name):
    return [value for key, value in sent[0]["headers"] if key.lower() == name]


def event(**fields):
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def chunk(text, finish=None, index=0):
    return event(choices=[{"index": index, "delta": {"content": text}, "finish_reason": finish}])
