"""A client's bad parameter is a 400, with SGL as without, and no failure of the guide. A failure of the guide
is a 503, where the server is to fail then."""

import json
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from tests.serve.asking import ask, content
from tests.support.server import REQUEST_TIMEOUT, Server, frozen, poll

TIMEOUT = 3
BAD = [
    {"logit_bias": {"999999": 1}},
    {"logit_bias": {"-5": 1}},
    {"allowed_token_ids": []},
    {"allowed_token_ids": [1000000]},
    {"stop_token_ids": [-1]},
    {"stop_token_ids": [1000000000]},
]


@pytest.fixture(scope="module")
def failing_server(qwen2_pair, tmp_path_factory):
    small, large = qwen2_pair
    flags = [
        f"--sgl-small={small}", "--sgl-break-even=off", "--sgl-follow-ups=off", "--sgl-on-error=fail",
        "--sgl-guide-memory=0",  # a guide that fails is asked the same again
        f"--sgl-guide-timeout={TIMEOUT}",
    ]  # fmt: skip
    with Server(large, tmp_path_factory.mktemp("failing") / "server.log", flags) as running:
        yield running


@contextmanager
def connection(server):
    """Posts chat requests over one connection, which must stay: (status, body)."""
    http = HTTPConnection("127.0.0.1", server.port, timeout=REQUEST_TIMEOUT)
    http.connect()
    http.auto_open = False  # never open another one unasked

    def post(question="Who?", *seeds, path="/v1/chat/completions", **options):
        messages = [{"role": "user", "content": content(question, seeds)}]
        body = {"model": server.model, "messages": messages, "max_tokens": 4, "temperature": 0, **options}
        http.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = http.getresponse()
        return response.status, response.read().decode()

    try:
        yield post
    finally:
        http.close()


@pytest.mark.parametrize("mode", ["fallback", "fail"])
def test_a_bad_parameter_is_a_400_in_every_mode(request, mode):
    server = request.getfixturevalue({"fallback": "server", "fail": "failing_server"}[mode])
    logged = len(server.log_text())
    before = server.metrics().total("sgl:requests_total", reason="guide_failed")
    with connection(server) as post:
        for bad in BAD:
            plain = post("Who?", 1, **bad, vllm_xargs={"sgl_enabled": 0})
            assert plain[0] == 400
            assert post("Who?", 1, **bad) == plain
        assert post("Who?", 1)[0] == 200
    assert server.metrics().total("sgl:requests_total", reason="guide_failed") == before
    log = server.log_text()[logged:]
    assert "ERROR" not in log
    assert "Traceback" not in log


def test_a_guide_that_fails_is_a_503_and_the_connection_stays(failing_server):
    server = failing_server
    with connection(server) as post:
        assert post("Who?", 1)[0] == 200
        logged = len(server.log_text())
        with frozen(server.small_engine()):
            status, body = post("Who?", 1)
            assert status == 503
            error = json.loads(body)["error"]
            assert error["message"].startswith("the guide failed (guide_timeout): no answer after ")
            assert (error["type"], error["code"]) == ("ServiceUnavailableError", 503)
            status, chunks = post("Who?", 1, stream=True)
            assert status == 200  # a stream has begun when its guide fails
            first, done = (line.removeprefix("data: ") for line in chunks.split("\n") if line)
            assert json.loads(first)["error"]["code"] == 503
            assert done == "[DONE]"
            assert "guide_timeout" in post("Who?", 1)[1]
            assert post("Who?", 1)[0] == 503
            assert "guide_unwell" in post("Who?", 1)[1]
            assert post("Who?")[0] == 200
            assert post("Who?", 1, vllm_xargs={"sgl_enabled": 0})[0] == 200
        log = server.log_text()[logged:]
    assert "Traceback" not in log
    assert "ERROR" not in log
    poll(lambda: server.get("/health")[1]["sgl-guide"] == "up", what="a guide that answers a probe")
    assert ask(server, "Who?", 1).sgl["decision"] == "prune"


def test_a_streamed_response_that_fails_ends_with_its_reason_and_the_connection_stays(failing_server):
    server = failing_server
    url = next(part["image_url"]["url"] for part in content("Who?", [1]) if part["type"] == "image_url")
    parts = [{"type": "input_image", "image_url": url, "detail": "auto"}, {"type": "input_text", "text": "?"}]
    asked = {"input": [{"role": "user", "content": parts}], "stream": True, "path": "/v1/responses"}
    logged = len(server.log_text())
    with connection(server) as post, frozen(server.small_engine()):
        status, events = post(**asked)
        assert status == 200  # a stream has begun when its guide fails
        *_, kind, data = (line for line in events.split("\n") if line)
        assert kind == "event: error"
        error = json.loads(data.removeprefix("data: "))
        assert (error["type"], error["code"]) == ("error", "503")
        assert error["message"].startswith("the guide failed (guide_timeout): no answer after ")
        assert post("Who?")[0] == 200
    assert "Traceback" not in server.log_text()[logged:]
    poll(lambda: server.get("/health")[1]["sgl-guide"] == "up", what="a guide that answers a probe")
