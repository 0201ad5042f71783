"""Several prompts in one request: each choice carries the report of the prompt that it answers."""

import json

import pytest

from tests.support.asgi import HEADERS, REPORT, SGL, STREAM, App, bodies, chunk, event, header, post
from vllm_sgl.core import Report

FIRST = chunk("a")
USAGE = event(choices=[], usage={"total_tokens": 9})
DONE = b"data: [DONE]\n\n"
OTHER = Report("bypass", "no_image")
THIRD = Report("exit", visual_tokens=16)


def body_of(*choices, **fields):
    return json.dumps({"id": "x", "choices": list(choices), **fields}, separators=(",", ":")).encode()


def headers_of(sent):
    return {name: value for name, value in sent[0]["headers"] if name.startswith(b"sgl-")}


async def test_each_choice_of_several_prompts_has_its_own_report():
    app = App([body_of({"index": 0}, {"index": 1}, usage={"n": 3})], reports=[(1, REPORT), (1, OTHER)])
    sent = await post(app)
    answer = json.loads(bodies(sent)[0])
    assert [choice["sgl"] for choice in answer["choices"]] == [REPORT.as_dict(), OTHER.as_dict()]
    assert "sgl" not in answer
    assert answer["usage"] == {"n": 3}
    assert header(sent, b"content-length") == [str(len(bodies(sent)[0])).encode()]
    # How many, and what both agree in.
    assert headers_of(sent) == {
        b"sgl-prompts": b"2", b"sgl-tiles": b"0", b"sgl-encoded-tiles": b"0", b"sgl-reused": b"0",
        b"sgl-late": b"0",
    }  # fmt: skip


async def test_several_choices_per_prompt():
    choices = [{"index": index} for index in range(4)]
    (body,) = bodies(await post(App([body_of(*choices)], reports=[(1, REPORT), (2, OTHER), (1, THIRD)])))
    found = [choice["sgl"]["decision"] for choice in json.loads(body)["choices"]]
    assert found == ["prune", "bypass", "bypass", "exit"]


async def test_a_prompt_without_a_decision_has_no_report():
    (body,) = bodies(await post(App([body_of({"index": 0}, {"index": 1})], reports=[(1, None), (1, OTHER)])))
    assert ["sgl" in choice for choice in json.loads(body)["choices"]] == [False, True]


@pytest.mark.parametrize("body", [b'{"output":[{"text":"choices"}]}', b'{"choices":[{"index":0}]}'])
async def test_rounds_of_one_answer_end_with_the_report_of_the_last(body):
    sent = await post(App([body], reports=[(1, OTHER), (1, REPORT)], rounds=True))
    assert bodies(sent) == [body[:-1] + SGL]
    assert headers_of(sent) == dict(HEADERS)


@pytest.mark.parametrize("body", [b'{"data":[{"score":0.5},{"score":1}]}', b'{"choices":[{"index":0}]}'])
async def test_without_a_choice_for_each_prompt_headers_alone_tell(body):
    """As `/generative_scoring` answers."""
    sent = await post(App([body], reports=[(1, OTHER), (1, OTHER)]))
    assert [json.loads(sent) for sent in bodies(sent)] == [json.loads(body)]
    assert headers_of(sent)[b"sgl-prompts"] == b"2"
    assert headers_of(sent)[b"sgl-reason"] == b"no_image"


async def test_one_prompt_with_several_choices_has_one_report():
    body = body_of({"index": 0}, {"index": 1})
    assert bodies(await post(App([body], reports=[(2, REPORT)]))) == [body[:-1] + SGL]


async def test_stream_of_several_prompts():
    """The chunks of the prompts come as they please; the second one makes two choices."""
    ends = [chunk("b", "stop", 2), chunk("a", "length", 0), chunk("c", "stop", 1)]
    app = App([FIRST, *ends, USAGE, DONE], content=STREAM, reports=[(1, REPORT), (2, OTHER)])
    messages = await post(app)
    assert headers_of(messages)[b"sgl-prompts"] == b"2"
    sent = bodies(messages)
    assert [sent[0], *sent[4:]] == [FIRST, USAGE, DONE]
    for body, before, report in zip(sent[1:4], ends, (OTHER, REPORT, OTHER), strict=True):
        event = json.loads(body.removeprefix(b"data: "))
        (choice,) = event["choices"]
        assert choice.pop("sgl") == report.as_dict()
        assert event == json.loads(before.removeprefix(b"data: "))
        assert body.endswith(b"\n\n")


async def test_stream_of_several_prompts_of_which_some_are_not_decided_when_it_starts():
    app = App(
        [FIRST, chunk("b", "stop", 1), DONE], content=STREAM, reports=[(1, REPORT), (1, REPORT)], decides=1
    )
    sent = await post(app)
    assert headers_of(sent) == {b"sgl-prompts": b"2"}
    assert bodies(sent)[0] == FIRST
