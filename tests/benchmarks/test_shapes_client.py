"""The streaming client of `benchmarks.shapes`, against a server in this process that streams like vLLM."""

import asyncio
import json
from contextlib import asynccontextmanager
from itertools import count

import pytest
from aiohttp import web

from benchmarks.shapes.client import send
from benchmarks.shapes.traffic.base import Case, Lane
from benchmarks.shapes.traffic.requests import fresh
from benchmarks.support.workspace import BenchmarkError

PAUSE = 0.05


def event(**fields) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


@asynccontextmanager
async def serving(answer):
    """answer: (request's JSON) -> the events of its stream, pauses between them."""
    received = []

    async def handle(request: web.Request) -> web.StreamResponse:
        received.append(asked := await request.json())
        if asked["max_tokens"] == 1:
            return web.json_response({"error": "too short"}, status=400)
        response = web.StreamResponse()
        await response.prepare(request)
        for number, one in enumerate(answer(asked)):
            await asyncio.sleep(PAUSE if number else 0)
            await response.write(one)
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", received
    finally:
        await runner.cleanup()


def digits(text: str):
    """As vLLM streams it: a first chunk without text, a chunk per token, the usage at the end."""

    def events(asked):
        yield event(choices=[{"delta": {"role": "assistant", "content": ""}}])
        yield from (event(choices=[{"delta": {"content": digit}}]) for digit in text)
        usage = {"prompt_tokens": 227, "completion_tokens": len(text) + 1,
                 "prompt_tokens_details": {"cached_tokens": 64}}  # fmt: skip
        yield event(choices=[], usage=usage, sgl={"decision": "prune"})

    return events


async def test_what_an_answer_is():
    request = fresh((1,))
    (right,) = request.answers
    async with serving(digits(right)) as (address, received):
        sent = await send(address, Case("one", (Lane((request,)),)), {"sgl_retention": 0.2}, count(1))
    (answer,) = sent.answers
    assert (answer.text, answer.right) == (right, 1.0)
    assert (answer.prompt_tokens, answer.cached_tokens, answer.tokens) == (227, 64, len(right) + 1)
    assert answer.sgl == {"decision": "prune"}
    assert 0.9 * PAUSE < answer.first_token < answer.seconds  # the first chunk has no token
    assert len(answer.gaps) == len(right) - 1
    assert received[0]["vllm_xargs"] == {"sgl_retention": 0.2}


async def test_a_wrong_answer_counts_as_wrong():
    request = fresh((1,))
    async with serving(digits("0000")) as (address, _):
        sent = await send(address, Case("one", (Lane((request,)),)), {}, count(1))
    assert sent.answers[0].right == 0.0


async def test_requests_come_in_the_order_and_at_the_times_of_the_case():
    first, second, later = (fresh((2, number), part=str(number)) for number in range(3))
    case = Case("order", (Lane((first, second)), Lane((later,), at=6 * PAUSE)), before=(fresh((2, 9)),))
    async with serving(digits("1")) as (address, received):
        sent = await send(address, case, {}, count(1))
    texts = [one["messages"][0]["content"][-1]["text"] for one in received]
    asked = [one.turns[0].text for one in (case.before[0], first, second, later)]
    assert texts == asked
    assert [answer.part for answer in sent.answers] == ["0", "1", "2"]  # what came before is not counted
    assert sent.seconds > 6 * PAUSE


async def test_a_refusal_is_told_in_the_servers_words():
    request = fresh((3,), endless=1)
    async with serving(digits("1")) as (address, _):
        with pytest.raises(BenchmarkError, match=r"image: HTTP 400: .*too short"):
            await send(address, Case("refused", (Lane((request,)),)), {}, count(1))


async def test_an_error_within_a_stream_is_no_answer():
    def broken(asked):
        yield event(error={"message": "the engine died"})

    async with serving(broken) as (address, _):
        with pytest.raises(BenchmarkError, match="the engine died"):
            await send(address, Case("broken", (Lane((fresh((4,)),)),)), {}, count(1))
