"""Responses that are fetched again: the middleware remembers what was decided of them."""

import json

import pytest
import torch

from tests.support.asgi import HEADERS, REPORT, SGL, STREAM, App, bodies, event, post
from tests.support.deep_size import deep_size
from vllm_sgl.core import Answer, Report
from vllm_sgl.serve.middleware import SGLMiddleware
from vllm_sgl.serve.stored import Stored

RESPONSES = "/root/v1/responses"
QUEUED, DONE = (
    json.dumps({"id": "resp_1", "status": status}, separators=(",", ":")).encode()
    for status in ("queued", "completed")
)
CREATED, COMPLETED = (
    event(response={"id": "resp_1"}, type=kind) for kind in ("response.created", "response.completed")
)


class Server:
    """One middleware over an app whose answers are exchanged."""

    def __init__(self):
        self.middleware = SGLMiddleware(None)

    async def __call__(self, app, method="POST", path=RESPONSES):
        self.middleware._app = app
        return await post(app, method=method, path=path, through=self.middleware)

    async def fetched(self, *chunks, id="resp_1", **app):
        return await self(App(list(chunks), **app), "GET", f"{RESPONSES}/{id}")


@pytest.fixture
def server():
    return Server()


async def test_a_background_response_has_its_report_once_it_is_decided(server):
    app = App([QUEUED], report=None)
    assert bodies(await server(app)) == [QUEUED]
    assert bodies(await server.fetched(QUEUED)) == [QUEUED]
    app.made[0].report = REPORT
    sent = await server.fetched(DONE)
    assert bodies(sent) == [DONE[:-1] + SGL]
    assert [value for value in sent[0]["headers"] if value[0].startswith(b"sgl-")] == HEADERS
    assert bodies(await server.fetched(DONE)) == [DONE[:-1] + SGL]


async def test_a_stored_response_has_the_report_that_it_had(server):
    assert bodies(await server(App([DONE]))) == [DONE[:-1] + SGL] == bodies(await server.fetched(DONE))


async def test_a_stream_that_is_fetched_again(server):
    sent = await server(App([CREATED, COMPLETED], content=STREAM, decides=1))
    again = await server.fetched(CREATED, COMPLETED, content=STREAM)
    assert bodies(again) == bodies(sent)
    assert json.loads(bodies(sent)[1].partition(b"data: ")[2])["response"]["sgl"] == REPORT.as_dict()
    assert [value for value in again[0]["headers"] if value[0].startswith(b"sgl-")] == HEADERS


@pytest.mark.parametrize(
    ("id", "app"), [("resp_2", {}), ("resp_1/input_items", {}), ("resp_1", {"status": 404})]
)
async def test_everything_else_is_untouched(server, id, app):
    await server(App([DONE]))
    assert bodies(await server.fetched(DONE, id=id, **app)) == [DONE]


async def test_ids_that_clients_choose(server):
    odd = 'one "id" of/mine'
    body = json.dumps({"id": odd}, separators=(",", ":")).encode()
    await server(App([body]))
    assert bodies(await server.fetched(body, id=odd)) == [body[:-1] + SGL]


@pytest.mark.parametrize(
    ("path", "app"),
    [("/v1/chat/completions", {}), (RESPONSES, {"status": 400}), (f"{RESPONSES}/x/cancel", {})],
)
async def test_only_responses_are_remembered(server, path, app):
    await server(App([DONE], **app), path=path)
    assert bodies(await server.fetched(DONE)) == [DONE]


async def test_the_latest_are_remembered(server):
    server.middleware._stored = Stored(most=2)
    for number in (1, 2, 1, 3):
        await server(App([DONE.replace(b"resp_1", b"resp_%d" % number)]))
    known = [number for number in (1, 2, 3) if server.middleware._stored.asked(f"{RESPONSES}/resp_{number}")]
    assert known == [1, 3]


def test_what_is_remembered_has_no_tensors():
    report = Report("prune", visual_tokens=4, kept_tokens=1, importance=[object()], kept=[object()])
    kept = report.without_tensors()
    assert (kept.importance, kept.kept) == (None, None)
    assert kept.as_dict() == report.as_dict()
    assert report.kept is not None


async def test_a_remembered_response_is_a_few_kilobytes(server):
    """Whatever was decided: of the small model's answer its text and tokens, of images nothing."""
    answer = Answer("yes " * 20, tuple(range(20)), (-0.5,) * 20, True, "stop")
    report = Report("exit", visual_tokens=4096, importance=[torch.ones(4096)], answer=answer)
    before = deep_size(server.middleware._stored._asked)
    for number in range(50):
        body = DONE.replace(b"resp_1", b"resp_%d" % number)
        await server(App([body], report=report.without_tensors()))
    assert len(server.middleware._stored._asked) == 50
    assert deep_size(server.middleware._stored._asked) - before < 50 * 8_000
