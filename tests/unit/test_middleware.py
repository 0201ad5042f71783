"""The ASGI middleware over made-up apps: what it reads off requests, and what it adds to responses."""

import json
from types import SimpleNamespace

import pytest

from vllm_sgl.core import Report
from vllm_sgl.engine import asked
from vllm_sgl.serve.middleware import SGLMiddleware

REPORT = Report("prune", visual_tokens=112, kept_tokens=39, confidence=0.5)
SGL = b',"sgl":' + json.dumps(REPORT.as_dict(), separators=(",", ":")).encode() + b"}"
JSON, STREAM = (b"application/json", b"text/event-stream; charset=utf-8")


class App:
    """Reads its whole request, then sends chunks; notes what it saw and when each chunk went out."""

    def __init__(self, chunks, *, content=JSON, status=200, report=REPORT, headers=()):
        self.chunks, self.status, self.report = chunks, status, report
        self.headers = [(b"content-type", content), *headers]
        self.log = []

    async def __call__(self, scope, receive, send):
        more = scope["type"] == "http" and scope["method"] == "POST"
        while more:
            more = (await receive()).get("more_body", False)
        self.about = asked.current.get()
        if self.about is not None:
            self.about.report = self.report
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        for i, chunk in enumerate(self.chunks):
            self.log.append(("app", i))
            more_body = i + 1 < len(self.chunks)
            await send({"type": "http.response.body", "body": chunk, "more_body": more_body})


async def post(app, *body, method="POST", path="/v1/chat/completions", scope=None):
    """Messages sent to the client; ``app.log`` has the order of both sides."""
    asked.current.set(None)
    parts = list(body or (b"{}",))
    sent = []

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        app.log.append(("client", message.get("body")))
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, **(scope or {})}
    await SGLMiddleware(app)(scope, receive, send)
    return sent


def bodies(sent):
    return [message["body"] for message in sent if message["type"] == "http.response.body"]


def header(sent, name):
    return [value for key, value in sent[0]["headers"] if key.lower() == name]


@pytest.mark.parametrize(
    "chunks",
    [
        [b'{"id":"x","usage":{"n":1}}'],
        [b'{"id":', b'"x","usage":', b'{"n":1}}'],
        [b'{"id":"x","usage":{"n":1}}', b""],
    ],
    ids=["whole", "in pieces", "empty end"],
)
async def test_report_is_spliced_into_a_json_body(chunks):
    body = b'{"id":"x","usage":{"n":1}}'
    length = (b"Content-Length", str(len(body)).encode())
    sent = await post(App(chunks, headers=[length]))
    assert bodies(sent) == [body[:-1] + SGL]
    assert header(sent, b"content-length") == [str(len(body) - 1 + len(SGL)).encode()]
    assert json.loads(bodies(sent)[0])["sgl"] == REPORT.as_dict()
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert not sent[-1]["more_body"]


async def test_empty_object_gets_no_comma():
    sent = await post(App([b"{}"]))
    assert bodies(sent) == [b"{" + SGL[1:]]


async def test_space_after_the_closing_brace_stays():
    sent = await post(App([b'{"a":1}\n']))
    assert bodies(sent) == [b'{"a":1' + SGL + b"\n"]


@pytest.mark.parametrize("body", [b"[1,2]", b"", b'"text"'])
async def test_json_that_is_no_object_stays(body):
    assert b"".join(bodies(await post(App([body])))) == body


async def test_response_without_a_report_stays():
    sent = await post(App([b'{"data":[]}'], report=None))
    assert bodies(sent) == [b'{"data":[]}']
    assert header(sent, b"content-length") == [b"11"]


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_errors_are_untouched(status):
    headers = [(b"content-length", b"13")]
    sent = await post(App([b'{"error":"x"}'], status=status, headers=headers))
    assert bodies(sent) == [b'{"error":"x"}']
    assert sent[0]["headers"] == [(b"content-type", JSON), *headers]


@pytest.mark.parametrize("content", [b"audio/wav", b"text/plain"])
async def test_other_content_is_untouched(content):
    sent = await post(App([b'{"a":1}', b"}"], content=content))
    assert bodies(sent) == [b'{"a":1}', b"}"]


def event(**fields):
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def chunk(text, finish=None, index=0):
    return event(choices=[{"index": index, "delta": {"content": text}, "finish_reason": finish}])


def with_sgl(chunk):
    return chunk[: -len(b"}\n\n")] + SGL + b"\n\n"


FIRST, MIDDLE, LAST = chunk("a"), chunk("b"), chunk("c", "stop")
USAGE = event(choices=[], usage={"total_tokens": 9})
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([FIRST, MIDDLE, LAST, DONE], [FIRST, MIDDLE, with_sgl(LAST), DONE]),
        ([FIRST, LAST, DONE, b""], [FIRST, with_sgl(LAST), DONE, b""]),
        ([FIRST, LAST, USAGE, DONE], [FIRST, LAST, with_sgl(USAGE), DONE]),
        (
            [FIRST, LAST, chunk("d", None, 1), chunk("e", "length", 1), DONE],
            [FIRST, LAST, chunk("d", None, 1), with_sgl(chunk("e", "length", 1)), DONE],
        ),
        ([LAST, DONE], [with_sgl(LAST), DONE]),
        ([FIRST, LAST], [FIRST, with_sgl(LAST)]),
        ([FIRST, DONE], [FIRST, DONE]),
    ],
    ids=["plain", "empty end", "usage chunk", "two choices", "exit", "no end mark", "no last chunk"],
)
async def test_report_is_in_the_last_chunk_of_a_stream_only(chunks, expected):
    sent = await post(App(chunks, content=STREAM))
    assert [body for body in bodies(sent) if body] == [body for body in expected if body]
    assert sent[0]["headers"] == [(b"content-type", STREAM)]
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(sent) - 2) + [False]


async def test_ordinary_chunks_are_not_delayed():
    app = App([FIRST, MIDDLE, LAST, DONE], content=STREAM)
    await post(app)
    order = [entry for entry in app.log if entry[1] is not None]
    assert order[:4] == [("app", 0), ("client", FIRST), ("app", 1), ("client", MIDDLE)]


async def test_answer_that_speaks_of_finishing_is_not_mistaken_for_the_end():
    talk = chunk('"finish_reason":"stop" response.completed "choices":[]')
    app = App([talk, MIDDLE, LAST, DONE], content=STREAM)
    assert bodies(await post(app)) == [talk, MIDDLE, with_sgl(LAST), DONE]


async def test_stream_of_the_responses_format():
    delta = b"event: response.output_text.delta\n" + event(type="response.output_text.delta", delta="a")
    end = b"event: response.completed\n" + event(type="response.completed", response={"id": "r"})
    sent = await post(App([delta, end], content=STREAM), path="/v1/responses")
    assert [body for body in bodies(sent) if body] == [delta, with_sgl(end)]


async def test_stream_without_a_report_stays():
    sent = await post(App([FIRST, LAST, DONE], content=STREAM, report=None))
    assert [body for body in bodies(sent) if body] == [FIRST, LAST, DONE]


async def test_failed_stream_is_passed_on():
    error = event(error={"message": "x"})
    assert bodies(await post(App([FIRST, error, DONE], content=STREAM))) == [FIRST, error, DONE]


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("body", "tools", "beam_search"),
    [
        ({}, False, False),
        ({"tools": [TOOL]}, True, False),
        ({"tools": [TOOL], "tool_choice": "auto"}, True, False),
        ({"tools": [TOOL], "tool_choice": "none"}, False, False),
        ({"tools": []}, False, False),
        ({"tools": None}, False, False),
        ({"functions": [{"name": "f"}]}, True, False),
        ({"use_beam_search": True}, False, True),
        ({"use_beam_search": False}, False, False),
        ({"messages": [{"role": "user", "content": 'say "tools" and "use_beam_search"'}]}, False, False),
        ({"tools": [TOOL], "use_beam_search": True}, True, True),
    ],
    ids=lambda value: json.dumps(value),
)
async def test_what_a_request_asks_for(body, tools, beam_search):
    encoded = json.dumps(body).encode()
    for parts in ([encoded], [encoded[:5], encoded[5:9], encoded[9:]]):
        app = App([b"{}"])
        await post(app, *parts)
        assert (app.about.tools, app.about.beam_search) == (tools, beam_search)


@pytest.mark.parametrize("body", [b'{"tools": [', b'["tools"]', b'"tools"', b'\xff"tools"'])
async def test_broken_request_is_left_to_vllm(body):
    app = App([b"{}"])
    await post(app, body)
    assert (app.about.tools, app.about.beam_search, app.about.token_ids) == (False, False, False)


@pytest.mark.parametrize("wanted", [True, False])
async def test_who_wants_to_see_token_ids(wanted):
    app = App([b"{}"])
    await post(app, json.dumps({"return_token_ids": wanted}).encode())
    assert app.about.token_ids is wanted


async def test_requests_have_contexts_of_their_own():
    one, two = App([b"{}"]), App([b"{}"])
    await post(one, json.dumps({"tools": [TOOL]}).encode())
    await post(two, b"{}")
    assert one.about is not two.about
    assert not two.about.tools


@pytest.mark.parametrize(("alive", "word"), [(True, b"up"), (False, b"down")])
async def test_health_tells_of_the_guide(alive, word):
    state = SimpleNamespace(engine_client=SimpleNamespace(guide_alive=alive))
    sent = await post(App([b""]), method="GET", path="/health", scope={"app": SimpleNamespace(state=state)})
    assert sent[0]["status"] == 200
    assert header(sent, b"sgl-guide") == [word]


async def test_other_gets_are_untouched():
    sent = await post(App([b'{"a":1}']), method="GET", path="/v1/models")
    assert bodies(sent) == [b'{"a":1}']
    assert sent[0]["headers"] == [(b"content-type", JSON)]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_protocols_pass_through(kind):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    scope = {"type": kind}
    await SGLMiddleware(app)(scope, "receive", "send")
    assert seen == [(scope, "receive", "send")]
