"""A stream that fails in its middle, for want of guidance or because the server ends."""

import json
from http import HTTPStatus

import pytest

from tests.support.asgi import STREAM, App, chunk, post
from vllm_sgl.engine.client import UnguidedRequestError
from vllm_sgl.engine.shutdown import ShuttingDownError

CREATED = b'event: response.created\ndata: {"sequence_number":0,"type":"response.created"}\n\n'
DELTA = b'event: response.output_text.delta\ndata: {"delta":"a","sequence_number":7}\n\n'


class Failing(App):
    """Sends its chunks, then raises what vLLM makes of a failure.

    failure: what the engine's client noted.
    """

    def __init__(self, chunks, failure, status=200):
        super().__init__(chunks, content=STREAM, status=status, report=None)
        self.failure = failure

    async def __call__(self, scope, receive, send):
        async def send_more(message):
            await send({**message, "more_body": True} if "body" in message else message)

        await super().__call__(scope, receive, send_more)
        self.about.failure = self.failure
        raise RuntimeError("Caught handled exception, but response already started.")


@pytest.mark.parametrize(
    "failure", [UnguidedRequestError("the guide failed (guide_dead): it died"), ShuttingDownError()]
)
async def test_a_responses_stream_ends_with_an_event_that_says_why(failure):
    *_, last, end = await post(Failing([CREATED, DELTA], failure), path="/v1/responses")
    assert last["body"] == DELTA
    kind, data = end["body"].decode().strip().split("\n")
    assert kind == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error", "code": str(int(HTTPStatus.SERVICE_UNAVAILABLE)), "message": str(failure),
        "param": None, "sequence_number": 8,
    }  # fmt: skip
    assert end["more_body"] is False  # the server can keep the connection


@pytest.mark.parametrize(
    ("chunks", "failure", "path"),
    [
        ([CREATED], None, "/v1/responses"),  # a fault of somebody else's
        ([chunk("a")], ShuttingDownError(), "/v1/chat/completions"),  # vLLM's own stream ends well
    ],
)
async def test_other_failures_are_left_to_the_server(chunks, failure, path):
    with pytest.raises(RuntimeError, match="already started"):
        await post(Failing(chunks, failure), path=path)
