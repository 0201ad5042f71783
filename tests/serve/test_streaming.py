"""Streams: the report comes on the first chunk and on the last one, whatever that is, and in the headers."""

import json
from urllib.request import Request, urlopen

import pytest

from tests.serve.asking import LONG, SHORT, ask, request, same_report, small_alone, stream, text
from tests.support.server import REQUEST_TIMEOUT

USAGE = {"include_usage": True}


def joined(chunks, index=0):
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def the_report(chunks):
    """The one report of a stream, which must be on its first and on its last chunk."""
    carrying = [number for number, chunk in enumerate(chunks) if "sgl" in chunk.model_extra]
    assert carrying == [0, len(chunks) - 1]
    assert chunks[0].sgl == chunks[-1].sgl
    return chunks[-1].sgl


@pytest.mark.parametrize("stream_options", [None, USAGE, {**USAGE, "continuous_usage_stats": True}])
@pytest.mark.parametrize(
    ("sgl", "decision"), [({}, "prune"), ({"exit_threshold": 0}, "exit"), ({"enabled": 0}, "bypass")]
)
def test_stream_says_what_the_body_says(server, sgl, decision, stream_options):
    whole = ask(server, *SHORT, sgl=sgl)
    chunks = stream(server, *SHORT, sgl=sgl, stream_options=stream_options)
    report = the_report(chunks)
    assert report["decision"] == decision
    assert same_report(report, whole.sgl)
    assert joined(chunks) == text(whole)
    finished = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finished == [whole.choices[0].finish_reason]
    if stream_options is not None:
        assert chunks[-1].choices == []
        assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("stream_options", [None, USAGE])
def test_two_choices(server, stream_options):
    options = {"n": 2, "temperature": 0.8, "seed": 3, "max_tokens": 20}
    chunks = stream(server, *LONG, stream_options=stream_options, sgl={"exit_threshold": 0}, **options)
    report = the_report(chunks)
    assert (report["decision"], report["reason"]) == ("prune", "n")
    finished = [c.index for chunk in chunks for c in chunk.choices if c.finish_reason]
    assert sorted(finished) == [0, 1]
    assert joined(chunks, 0)
    assert joined(chunks, 1)


def test_choices_of_different_lengths(server):
    """The first choice to finish ends its own stream, not the response."""
    lengths = set()
    for seed in range(12):
        chunks = stream(server, *SHORT, n=2, temperature=1.5, seed=seed, max_tokens=24, logprobs=True)
        assert the_report(chunks)["reason"] is None
        ends = [number for number, chunk in enumerate(chunks) for c in chunk.choices if c.finish_reason]
        assert len(ends) == 2
        lengths.add(ends[1] - ends[0])
    assert max(lengths) > 2


def test_stream_starts_after_the_decision(server, qwen2_pair):
    """An exit answer comes as one finished piece."""
    chunks = stream(server, *SHORT, sgl={"exit_threshold": 0}, max_tokens=40)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert pieces == [small_alone(qwen2_pair[0], *SHORT).answer]


def test_raw_stream_is_valid_and_ends_with_done(server):
    asked = request(*SHORT, stream=True)
    body = {"model": server.model, **asked.pop("extra_body"), **asked}
    headers = {"content-type": "application/json"}
    url = f"http://127.0.0.1:{server.port}/v1/chat/completions"
    with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=REQUEST_TIMEOUT) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["sgl-decision"] == "prune"
        events = response.read().decode().removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert ["sgl" in chunk for chunk in chunks] == [True] + [False] * (len(chunks) - 2) + [True]
