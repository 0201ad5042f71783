"""The ASGI middleware over made-up apps: what it reads off requests, and what it adds to responses."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.support.asgi import HEADERS, JSON, REPORT, SGL, STREAM, App, bodies, header, post
from vllm_sgl.serve.middleware import SGLMiddleware


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
    assert [value for value in sent[0]["headers"] if value[0].startswith(b"sgl-")] == HEADERS
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert not sent[-1]["more_body"]


async def test_a_report_with_a_number_that_is_none_is_json():
    """Strict parsers would refuse the whole response."""
    report = replace(REPORT, score=math.nan, confidence=math.inf)
    (body,) = bodies(await post(App([b"{}"], report=report)))
    found = json.loads(body, parse_constant=pytest.fail)["sgl"]
    assert found == {**REPORT.as_dict(), "score": None, "confidence": None}


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
    assert sent[0]["headers"] == [(b"content-type", JSON), (b"content-length", b"11")]


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


async def test_failure_before_the_first_chunk_leaves_the_response_to_others():
    """Whoever answers for the app still can: nothing was sent."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", STREAM)]})
        raise RuntimeError("broken")

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}
    with pytest.raises(RuntimeError, match="broken"):
        await SGLMiddleware(app)(scope, None, send)
    assert sent == []


async def test_messages_that_are_no_body_do_not_overtake_the_start():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", JSON)]})
        await send({"type": "http.response.pathsend", "path": "answer.json"})

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}
    await SGLMiddleware(app)(scope, None, send)
    assert sent == ["http.response.start", "http.response.pathsend"]


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
        ({"chat_template_kwargs": {"tools": [TOOL]}, "tool_choice": "none"}, True, False),
        ({"chat_template_kwargs": {"tools": []}}, False, False),
        ({"chat_template_kwargs": ["tools"]}, False, False),
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


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        ({"vllm_xargs": {"sgl_retention": True}}, {"sgl_retention": True}),
        ({"vllm_xargs": {"sgl_retention": 0.5, "SGL-policy": "top", "other": True}},
         {"sgl_retention": 0.5, "SGL-policy": "top"}),
        ({"messages": 'say {"vllm_xargs": {"sgl_retention": true}}'}, {}),
        ({"messages": [{"vllm_xargs": {"sgl_retention": True}}]}, {}),
        ({"vllm_xargs": ["sgl_retention"]}, {}),
        ({"vllm_xargs": None}, {}),
    ],
)  # fmt: skip
async def test_keys_are_noted_as_they_were_written(body, keys):
    app = App([b"{}"])
    await post(app, json.dumps(body).encode())
    assert app.about.keys == keys


PLAIN = json.dumps({"tools": [TOOL], "use_beam_search": True, "vllm_xargs": {"sgl_retention": True}})


@pytest.mark.parametrize(
    "body",
    [
        PLAIN.replace("tools", "tool\\u0073").replace("e_b", "e\\u005Fb").replace("xargs", "x\\u0061rgs"),
        PLAIN.replace("tools", "too\\u006cs").replace("beam", "bea\\u006D").replace("vllm", "\\u0076llm"),
        PLAIN.encode("utf-16"), PLAIN.encode("utf-16-le"), PLAIN.encode("utf-32"), PLAIN.encode("utf-8-sig"),
    ],
    ids=["escapes", "other escapes", "UTF-16", "UTF-16 without a mark", "UTF-32", "UTF-8 with a mark"],
)  # fmt: skip
async def test_no_way_to_write_a_body_hides_what_it_asks_for(body):
    """vLLM reads all of these."""
    body = body if isinstance(body, bytes) else body.encode()
    assert json.loads(body) == json.loads(PLAIN)
    app = App([b"{}"])
    await post(app, body)
    assert (app.about.tools, app.about.beam_search) == (True, True)
    assert app.about.keys == {"sgl_retention": True}


@pytest.mark.parametrize(
    ("path", "seen"), [("/v1/chat/completions", True), ("/root/inference/v1/generate", False)]
)
async def test_tokens_do_not_tell_of_tools(path, seen):
    app = App([b"{}"])
    await post(app, path=path)
    assert app.about.seen is seen


@pytest.mark.parametrize(
    "body", [b'{"tools": [', b'["tools"]', b'"tools"', b'\xff"tools"', b'{"tools":' + b"[" * 100_000]
)
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
