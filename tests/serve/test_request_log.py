"""``--sgl-log``: a line for each request, whatever way it was asked."""

import json

from tests.serve.asking import VISUAL, ask, request
from tests.serve.conftest import REQUEST_LOG
from tests.support.server import Server, poll


def line_of(server: Server, id: str) -> dict:
    """Of the request with this id, once it is written."""
    path = server.log.parent / REQUEST_LOG

    def found():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if line["request"].startswith(id)]

    (line,) = poll(found, what="the line")
    return line


def test_a_request_s_line_is_its_report_and_more(server):
    completion = ask(server, "What is on the sign?", 1, sgl={"retention": 0.09})
    line = line_of(server, completion.id)
    assert line.items() >= completion.sgl.items()
    assert (line["retention"], line["exit_threshold"], line["kept_tokens"]) == (0.09, None, 10)
    assert line["prompt_tokens"] == completion.usage.prompt_tokens
    assert line["answer_tokens"] == completion.usage.completion_tokens
    assert line["finish_reason"] == completion.choices[0].finish_reason
    assert line["seconds"] > line["guide_seconds"] > 0
    assert not {"prompt", "answer", "agrees"} & line.keys()


def test_a_stream_that_exits(server):
    given = request("What is on the sign?", 1, sgl={"exit_threshold": 0}, stream=True)
    chunks = list(server.client.chat.completions.create(model=server.model, **given))
    line = line_of(server, chunks[0].id)
    assert (line["decision"], line["visual_tokens"], line["kept_tokens"]) == ("exit", VISUAL, 0)
    assert line["answer_tokens"] > 0


def test_a_client_that_leaves(server):
    given = request("What is on the sign?", 1, stream=True, max_tokens=600)
    stream = server.client.chat.completions.create(
        model=server.model, **{**given, "extra_body": {"ignore_eos": True}}
    )
    first = next(iter(stream))
    stream.close()
    assert line_of(server, first.id)["finish_reason"] == "abort"
