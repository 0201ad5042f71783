"""The report on vLLM's other text-generating endpoints, and its absence everywhere else."""

import json
from urllib.request import Request, urlopen

import pytest

from tests.serve.asking import SHORT, SIZE, VISUAL, ask, content, text
from tests.support.images import data_url, random_image
from tests.support.server import REQUEST_TIMEOUT


def post(server, path, body):
    """The JSON body, or the list of a stream's JSON events."""
    address = f"http://127.0.0.1:{server.port}{path}"
    request = Request(address, json.dumps(body).encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=REQUEST_TIMEOUT) as response:
        answer = response.read().decode()
        length = response.headers["content-length"]
        assert length is None or int(length) == len(answer.encode())
    if not body.get("stream"):
        return json.loads(answer)
    data = [line.removeprefix("data: ") for line in answer.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in data if line != "[DONE]"]


def messages_body(server, question, seed, **options):
    source = {"type": "base64", "media_type": "image/png"}
    source["data"] = data_url(random_image(seed, *SIZE)).partition("base64,")[2]
    parts = [{"type": "image", "source": source}, {"type": "text", "text": question}]
    body = {"model": server.model, "max_tokens": 12, "temperature": 0}
    return {**body, "messages": [{"role": "user", "content": parts}], **options}


@pytest.mark.parametrize("streamed", [False, True])
def test_completions(server, streamed):
    body = {"model": server.model, "prompt": "Who is it?", "max_tokens": 4, "temperature": 0}
    answer = post(server, "/v1/completions", {**body, "stream": streamed})
    carrying = [chunk for chunk in answer if "sgl" in chunk] if streamed else [answer]
    assert [chunk["sgl"]["reason"] for chunk in carrying] == ["no_image"]
    if streamed:
        assert answer[-1] is carrying[0]


def test_completions_with_two_prompts(server):
    body = {"model": server.model, "prompt": ["Who?", "What?"], "max_tokens": 4}
    answer = post(server, "/v1/completions", body)
    assert len(answer["choices"]) == 2
    assert answer["sgl"]["decision"] == "bypass"


@pytest.mark.parametrize("streamed", [False, True])
def test_messages(server, streamed):
    answer = post(server, "/v1/messages", messages_body(server, *SHORT, stream=streamed))
    carrying = [event for event in answer if "sgl" in event] if streamed else [answer]
    assert [event["sgl"]["decision"] for event in carrying] == ["prune"]
    assert carrying[0]["sgl"]["visual_tokens"] == VISUAL
    if streamed:
        assert answer[-1] is carrying[0]
    else:
        assert answer["content"][0]["text"] == text(ask(server, *SHORT))


@pytest.mark.parametrize("streamed", [False, True])
def test_responses(server, streamed):
    question, seed = SHORT
    parts = [
        {
            "type": "input_image",
            "image_url": content(question, (seed,))[0]["image_url"]["url"],
            "detail": "auto",
        },
        {"type": "input_text", "text": question},
    ]
    body = {"model": server.model, "max_output_tokens": 12, "temperature": 0, "stream": streamed}
    answer = post(server, "/v1/responses", {**body, "input": [{"role": "user", "content": parts}]})
    carrying = [event for event in answer if "sgl" in event] if streamed else [answer]
    assert [event["sgl"]["decision"] for event in carrying] == ["prune"]
    if streamed:
        assert answer[-1] is carrying[0]


def test_everything_else_is_untouched(server):
    body = {"model": server.model, "prompt": "Who?"}
    assert "sgl" not in post(server, "/tokenize", body)
    status, headers, answer = server.get("/v1/models")
    assert "sgl" not in json.loads(answer)
    assert "sgl-guide" not in headers
    status, headers, _ = server.get("/health")
    assert (status, headers["sgl-guide"]) == (200, "up")
