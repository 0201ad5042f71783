"""The report on vLLM's other text-generating endpoints, and its absence everywhere else."""

import json
from urllib.request import Request, urlopen

import pytest

from tests.serve.asking import SHORT, SIZE, VISUAL, ask, content, same_report, text
from tests.support.images import data_url, random_image
from tests.support.server import REQUEST_TIMEOUT, poll


def post(server, path, body):
    """The JSON body, or the list of a stream's JSON events."""
    return post_for_headers(server, path, body)[0]


def post_for_headers(server, path, body):
    """That, and our headers."""
    address = f"http://127.0.0.1:{server.port}{path}"
    request = Request(address, json.dumps(body).encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=REQUEST_TIMEOUT) as response:
        answer = response.read().decode()
        length = response.headers["content-length"]
        assert length is None or int(length) == len(answer.encode())
        ours = {name: value for name, value in response.headers.items() if name.startswith("sgl-")}
    if not body.get("stream"):
        return json.loads(answer), ours
    data = [line.removeprefix("data: ") for line in answer.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in data if line != "[DONE]"], ours


def as_headers(report):
    """A report as it should stand in headers, written down once more."""
    names = {name: "sgl-" + name.removesuffix("_tokens").replace("_", "-") for name in report}
    return {names[name]: str(value) for name, value in report.items() if value is not None}


def messages_body(server, question, seed, **options):
    source = {"type": "base64", "media_type": "image/png"}
    source["data"] = data_url(random_image(seed, *SIZE)).partition("base64,")[2]
    parts = [{"type": "image", "source": source}, {"type": "text", "text": question}]
    body = {"model": server.model, "max_tokens": 12, "temperature": 0}
    return {**body, "messages": [{"role": "user", "content": parts}], **options}


def responses_body(server, question, seed, **options):
    url = content(question, (seed,))[0]["image_url"]["url"]
    parts = [
        {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_text", "text": question},
    ]
    body = {"model": server.model, "max_output_tokens": 12, "temperature": 0}
    return {**body, "input": [{"role": "user", "content": parts}], **options}


@pytest.mark.parametrize("streamed", [False, True])
def test_completions(server, streamed):
    body = {"model": server.model, "prompt": "Who is it?", "max_tokens": 4, "temperature": 0}
    answer, headers = post_for_headers(server, "/v1/completions", {**body, "stream": streamed})
    carrying = [chunk for chunk in answer if "sgl" in chunk] if streamed else [answer]
    assert {chunk["sgl"]["reason"] for chunk in carrying} == {"no_image"}
    assert headers == as_headers(carrying[0]["sgl"])
    if streamed:
        assert carrying == [answer[0], answer[-1]]


def test_scores_stay_as_they_are(server):
    """Of several texts at once; headers tell."""
    body = {"model": server.model, "query": "Is it?", "items": ["Yes.", "No."], "label_token_ids": [5, 6]}
    before = counted(server)
    answer, headers = post_for_headers(server, "/generative_scoring", body)
    assert "sgl" not in answer
    assert (headers["sgl-prompts"], headers["sgl-reason"]) == ("2", "no_image")
    assert counted(server) == before + 2


def counted(server, **labels):
    return server.metrics().total("sgl:requests_total", **labels)


@pytest.mark.parametrize("streamed", [False, True])
def test_completions_with_several_prompts(server, streamed):
    body = {"model": server.model, "prompt": ["Who?", "What?"], "max_tokens": 4, "n": 2, "stream": streamed}
    before = counted(server)
    answer, headers = post_for_headers(server, "/v1/completions", body)
    assert headers["sgl-prompts"] == "2"
    if not streamed:  # the second may not be decided when a stream starts
        assert (headers["sgl-decision"], headers["sgl-reason"]) == ("bypass", "no_image")
    chunks = answer if streamed else [answer]
    assert not any("sgl" in chunk for chunk in chunks)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    reports = {choice["index"]: choice["sgl"]["reason"] for choice in choices if "sgl" in choice}
    assert reports == dict.fromkeys(range(4), "no_image")
    assert len([choice for choice in choices if "sgl" in choice]) == 4
    assert counted(server) == before + 2


def test_beam_search_over_several_prompts_is_one_request(server):
    body = {"model": server.model, "prompt": ["Who?", "What?"], "max_tokens": 3, "use_beam_search": True}
    before = counted(server)
    answer = post(server, "/v1/completions", {**body, "n": 2, "temperature": 0})
    assert answer["sgl"]["reason"] == "beam_search"
    assert counted(server) == before + 1


def test_batch(server):
    """A report per conversation, which is that of the conversation asked alone."""
    questions = [(SHORT[0], (SHORT[1],)), ("Who?", ()), ("Who?", (1, 2))]
    messages = [[{"role": "user", "content": content(*question)}] for question in questions]
    body = {"model": server.model, "messages": messages, "max_tokens": 12, "temperature": 0}
    before, tokens = counted(server), server.metrics().total("sgl:visual_tokens_total", kind="seen")
    answer, headers = post_for_headers(server, "/v1/chat/completions/batch", body)
    assert headers == {"sgl-prompts": "3", "sgl-reused": "0", "sgl-late": "0"}  # what all of them agree in
    assert counted(server) == before + 3
    assert server.metrics().total("sgl:visual_tokens_total", kind="seen") == tokens + 3 * VISUAL
    assert "sgl" not in answer
    for choice, (question, seeds) in zip(answer["choices"], questions, strict=True):
        alone = ask(server, question, *seeds)
        assert same_report(choice["sgl"], alone.sgl)
        assert choice["message"]["content"] == text(alone)
    assert [choice["sgl"]["visual_tokens"] for choice in answer["choices"]] == [VISUAL, 0, 2 * VISUAL]


@pytest.mark.parametrize("streamed", [False, True])
def test_messages(server, streamed):
    answer, headers = post_for_headers(server, "/v1/messages", messages_body(server, *SHORT, stream=streamed))
    carrying = [event for event in answer if "sgl" in event] if streamed else [answer]
    assert [event["sgl"]["decision"] for event in carrying] == ["prune"]
    assert carrying[0]["sgl"]["visual_tokens"] == VISUAL
    assert headers == as_headers(carrying[0]["sgl"])
    if streamed:
        assert answer[-1] is carrying[0]
        assert (answer[0]["type"], answer[0]["message"]["sgl"]) == ("message_start", answer[-1]["sgl"])
    else:
        assert answer["content"][0]["text"] == text(ask(server, *SHORT))


@pytest.mark.parametrize("streamed", [False, True])
def test_responses(server, streamed):
    body = responses_body(server, *SHORT, stream=streamed)
    answer, headers = post_for_headers(server, "/v1/responses", body)
    carrying = [event for event in answer if "sgl" in event] if streamed else [answer]
    assert [event["sgl"]["decision"] for event in carrying] == ["prune"]
    if streamed:
        assert answer[-1] is carrying[0]
        assert answer[-1]["response"]["sgl"] == answer[-1]["sgl"]
        assert headers == {}, "its first event goes out before the decision"
    else:
        assert headers == as_headers(answer["sgl"])


def fetched(server, id):
    """A stored response once it has an end, and our headers."""

    def ended():
        _, headers, body = server.get(f"/v1/responses/{id}")
        answer = json.loads(body)
        return (answer, headers) if answer["status"] not in ("queued", "in_progress") else None

    answer, headers = poll(ended, REQUEST_TIMEOUT, "the end of the response")
    assert answer["status"] == "completed"
    return answer, {name: value for name, value in headers.items() if name.startswith("sgl-")}


def test_a_background_response_is_fetched_with_its_report(server):
    queued = post(server, "/v1/responses", responses_body(server, *SHORT, background=True))
    assert queued["status"] == "queued"
    answer, headers = fetched(server, queued["id"])
    alone = ask(server, *SHORT)
    assert same_report(answer["sgl"], alone.sgl)
    assert headers == as_headers(answer["sgl"])
    assert answer["output"][0]["content"][0]["text"] == text(alone)


def test_a_background_stream_is_fetched_with_its_report(server):
    body = responses_body(server, *SHORT, background=True, stream=True)
    events = post(server, "/v1/responses", body)
    id = events[0]["response"]["id"]
    assert events[-1]["type"] == "response.completed"
    assert fetched(server, id)[0]["sgl"] == events[-1]["sgl"]
    _, headers, again = server.get(f"/v1/responses/{id}?stream=true")
    data = [line.removeprefix("data: ") for line in again.splitlines() if line.startswith("data: ")]
    assert [json.loads(line) for line in data] == events
    assert headers["sgl-decision"] == events[-1]["sgl"]["decision"]


def test_a_stored_response_keeps_its_report(server):
    answer = post(server, "/v1/responses", responses_body(server, *SHORT))
    assert fetched(server, answer["id"])[0]["sgl"] == answer["sgl"]


def test_everything_else_is_untouched(server):
    body = {"model": server.model, "prompt": "Who?"}
    answer, headers = post_for_headers(server, "/tokenize", body)
    assert "sgl" not in answer
    assert headers == {}
    status, headers, answer = server.get("/v1/models")
    assert "sgl" not in json.loads(answer)
    assert "sgl-guide" not in headers
    status, headers, _ = server.get("/health")
    assert (status, headers["sgl-guide"]) == (200, "up")


def test_the_processor_cache_is_counted_as_in_vllm(server):
    before = server.metrics()
    for _ in range(2):
        ask(server, "Who?", 91, max_tokens=1)
    poll(
        lambda: server.metrics().total("vllm:mm_cache_hits_total") > before.total("vllm:mm_cache_hits_total"),
        what="a hit in the processor cache",
    )
    queries = "vllm:mm_cache_queries_total"
    assert server.metrics().total(queries) >= before.total(queries) + 2
