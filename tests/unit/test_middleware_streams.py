"""Streams through the ASGI middleware: the report on their first and last chunk, and nothing is delayed."""

import json

import pytest

from tests.support.asgi import HEADERS, REPORT, SGL, STREAM, App, bodies, chunk, event, post


def with_sgl(chunk):
    return chunk[: -len(b"}\n\n")] + SGL + b"\n\n"


FIRST, MIDDLE, LAST = chunk("a"), chunk("b"), chunk("c", "stop")
USAGE = event(choices=[], usage={"total_tokens": 9})
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([FIRST, MIDDLE, LAST, DONE], [with_sgl(FIRST), MIDDLE, with_sgl(LAST), DONE]),
        ([FIRST, LAST, DONE, b""], [with_sgl(FIRST), with_sgl(LAST), DONE, b""]),
        ([FIRST, LAST, USAGE, DONE], [with_sgl(FIRST), LAST, with_sgl(USAGE), DONE]),
        (
            [FIRST, LAST, chunk("d", None, 1), chunk("e", "length", 1), DONE],
            [with_sgl(FIRST), LAST, chunk("d", None, 1), with_sgl(chunk("e", "length", 1)), DONE],
        ),
        ([LAST, DONE], [with_sgl(LAST), DONE]),
        ([LAST, USAGE, DONE], [with_sgl(LAST), with_sgl(USAGE), DONE]),
        ([FIRST, LAST], [with_sgl(FIRST), with_sgl(LAST)]),
        ([FIRST, DONE], [with_sgl(FIRST), DONE]),
    ],
    ids=[
        "plain", "empty end", "usage chunk", "two choices", "one chunk", "one chunk and usage", "no end mark",
        "no last chunk",
    ],
)  # fmt: skip
async def test_report_is_in_the_first_and_the_last_chunk_of_a_stream(chunks, expected):
    sent = await post(App(chunks, content=STREAM))
    assert [body for body in bodies(sent) if body] == [body for body in expected if body]
    assert sent[0]["headers"] == [(b"content-type", STREAM), *HEADERS]
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(sent) - 2) + [False]


async def test_ordinary_chunks_are_not_delayed():
    app = App([FIRST, MIDDLE, LAST, DONE], content=STREAM)
    await post(app)
    order = [entry for entry in app.log if entry[1] is not None]
    assert order[:4] == [("app", 0), ("client", with_sgl(FIRST)), ("app", 1), ("client", MIDDLE)]


async def test_answer_that_speaks_of_finishing_is_not_mistaken_for_the_end():
    talk = chunk('"finish_reason":"stop" response.completed "choices":[]')
    app = App([talk, MIDDLE, LAST, DONE], content=STREAM)
    assert bodies(await post(app)) == [with_sgl(talk), MIDDLE, with_sgl(LAST), DONE]


def data_of(chunk):
    return json.loads(chunk.partition(b"data: ")[2])


async def test_stream_of_the_responses_format():
    """It begins before the decision, and its events go out when they come."""
    created = b"event: response.created\n" + event(type="response.created", response={"id": "r"})
    talk = event(type="response.output_text.delta", delta='"type":"response.completed"')
    end = b"event: response.completed\n" + event(
        response={"id": "r", "output": []}, sequence_number=7, type="response.completed"
    )
    app = App([created, talk, end], content=STREAM, decides=1)
    sent = await post(app, path="/v1/responses")
    assert sent[0]["headers"] == [(b"content-type", STREAM)]
    assert app.log[:3] == [("app", 0), ("client", None), ("client", created)]
    *before, last = [body for body in bodies(sent) if body]
    assert before == [created, talk]
    assert last.startswith(b"event: response.completed\ndata: ")
    assert last.endswith(b"}\n\n")
    completed = {"id": "r", "output": [], "sgl": REPORT.as_dict()}
    assert data_of(last) == {**data_of(end), "response": completed, "sgl": REPORT.as_dict()}


async def test_stream_of_the_messages_format():
    start = b"event: message_start\n" + event(type="message_start", message={"id": "m", "usage": {}})
    delta = b"event: content_block_delta\n" + event(
        type="content_block_delta", delta={"text": "message_start"}
    )
    stop = b"event: message_stop\n" + event(type="message_stop")
    app = App([start, delta, stop], content=STREAM)
    sent = await post(app, path="/v1/messages")
    assert sent[0]["headers"] == [(b"content-type", STREAM), *HEADERS]
    first, *others = [body for body in bodies(sent) if body]
    assert first.startswith(b"event: message_start\ndata: ")
    message = {"id": "m", "usage": {}, "sgl": REPORT.as_dict()}
    assert data_of(first) == {"type": "message_start", "message": message}
    assert others == [delta, with_sgl(stop)]


async def test_stream_without_a_report_stays():
    sent = await post(App([FIRST, LAST, DONE], content=STREAM, report=None))
    assert [body for body in bodies(sent) if body] == [FIRST, LAST, DONE]
    assert sent[0]["headers"] == [(b"content-type", STREAM)]


async def test_failed_stream_is_passed_on():
    error = event(error={"message": "x"})
    assert bodies(await post(App([FIRST, error, DONE], content=STREAM))) == [with_sgl(FIRST), error, DONE]
    assert bodies(await post(App([error, DONE], content=STREAM))) == [error, DONE]
