"""Odd requests do no harm: a 400 or an answer, never a 5xx, and everybody else's answers stay right."""

from collections import Counter

import pytest

from tests.hard.clients import at_once, body, connect, post
from tests.hard.odd import images, keys, sampling, url
from tests.hard.questions import Reference, questions
from tests.hard.scale import count, say
from tests.support.server import Server
from vllm_sgl.config import SGLConfig
from vllm_sgl.request.options import RequestOptions

#: The ways in which a request is tried.
SETTINGS = ({}, {"sgl_exit_threshold": 0}, {"sgl_enabled": 0})
#: What plain vLLM answers with a 500, too; see docs/troubleshooting.md.
PLAIN_500 = {"kv_transfer_params"}


@pytest.fixture(scope="module")
def server(qwen2_pair, tmp_path_factory):
    flags = [f"--sgl-small={qwen2_pair[0]}", "--sgl-break-even=off", "--sgl-follow-ups=off"]
    with Server(qwen2_pair[1], tmp_path_factory.mktemp("odd") / "log", flags) as running:
        yield running


@pytest.fixture(scope="module")
def reference(server):
    return Reference(server, questions(8, seed=2))


@pytest.fixture(autouse=True)
def others_are_well(server, reference):
    """Good questions among and after the odd ones are answered as ever."""
    yield
    asked = reference.questions
    reference.check_all(asked, at_once(server, [question.body(server) for question in asked]))
    assert server.get("/health")[1]["sgl-guide"] == "up"


def allowed(xargs, config):
    """Whether our own rules take these keys; vLLM's may not."""
    try:
        RequestOptions.parse(xargs, config)
    except ValueError:
        return False
    return True


def test_request_keys(server, qwen2_pair):
    config = SGLConfig(small=str(qwen2_pair[0]))
    statuses = Counter()
    with connect(server) as http:
        for xargs in keys(count(ci=80, full=300)):
            result = post(http, body(server, "Who?", 1, max_tokens=2, vllm_xargs=xargs))
            assert result.status in (200, 400), (xargs, result)
            statuses[result.status] += 1
            if result.status == 200:  # nothing is smuggled past its range by a spelling or a type
                assert allowed(xargs, config), (xargs, result.body)
    say(f"request keys: {dict(statuses)}")
    assert min(statuses[200], statuses[400]) > 0


def test_sampling_parameters(server):
    statuses = Counter()
    with connect(server) as http:
        for options in sampling(count(ci=30, full=90)):
            found = []
            for xargs in SETTINGS:
                made = {**body(server, "Who?", 1, max_tokens=3, vllm_xargs=xargs), **options}
                result = post(http, made)
                assert result.status is not None, (options, result.error)
                found.append(result.status)
            statuses[tuple(found)] += 1
            # Guided or not makes no difference to what is allowed.
            assert found[0] == found[2], (options, found)
            assert set(found) <= {200, 400}, (options, found)
    say(f"sampling parameters, guided, exit, off: {dict(statuses)}")


def test_images(server):
    statuses = Counter()
    every = list(images())
    with connect(server) as http:
        for name, file in every[:: count(ci=3, full=1)]:
            found = []
            for xargs in SETTINGS:
                part = {"type": "image_url", "image_url": {"url": url(file)}}
                content = [part, {"type": "text", "text": "Who?"}]
                made = {"messages": [{"role": "user", "content": content}], "vllm_xargs": xargs}
                result = post(http, {**body(server, "", max_tokens=3), **made})
                assert result.status in (200, 400), (name, result)
                found.append(result.status)
            statuses[found[0]] += 1
            assert len(set(found)) == 1, (name, found)
    say(f"{sum(statuses.values())} images: {dict(statuses)}")
    assert min(statuses[200], statuses[400]) > 0
