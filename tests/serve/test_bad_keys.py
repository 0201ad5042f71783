"""A bad ``sgl_*`` key is a 400 that names the key, what is allowed and what came."""

import openai
import pytest

from tests.serve.asking import SHORT, ask, stream
from tests.serve.test_profiles import PATHS, body_for, refused

BAD = [
    ({"foo": 1}, ("sgl_foo", "sgl_retention", "sgl_exit_threshold", "sgl_guide_tokens", "sgl_enabled")),
    ({"rows": "prompt"}, ("sgl_rows", "sgl_query_rows", "received 'prompt'")),
    ({"retention": 1.5}, ("sgl_retention", "(0, 1]", "1.5")),
    ({"retention": 0}, ("sgl_retention", "(0, 1]", "received 0")),
    ({"retention": "most"}, ("sgl_retention", "a number", "'most'")),
    ({"exit_threshold": 1.01}, ("sgl_exit_threshold", "[0, 1]", "1.01")),
    ({"exit_threshold": [0.5]}, ("sgl_exit_threshold", "[0, 1]", "[0.5]")),
    ({"guide_tokens": 0}, ("sgl_guide_tokens", ">= 1", "received 0")),
    ({"guide_tokens": 2.5}, ("sgl_guide_tokens", "whole number", "2.5")),
    ({"query_rows": "all"}, ("sgl_query_rows", "'last_prompt+generated'", "received 'all'")),
    ({"query_rows": 1}, ("sgl_query_rows", "'generated'", "received 1")),
    ({"enabled": 2}, ("sgl_enabled", "0 or 1", "received 2")),
    ({"retention": True}, ("sgl_retention", "a number in (0, 1]", "received True")),
    ({"guide_tokens": False}, ("sgl_guide_tokens", "whole number", "received False")),
    ({"retention": 2, "enabled": -1}, ("sgl_retention", "sgl_enabled", "received 2", "received -1")),
]


@pytest.mark.parametrize("seeds", [(), (1,)], ids=["text", "image"])
@pytest.mark.parametrize("send", [ask, stream])
@pytest.mark.parametrize(("sgl", "named"), BAD)
def test_bad_key_is_a_400(server, sgl, named, send, seeds):
    before = server.metrics()
    with pytest.raises(openai.BadRequestError) as caught:
        send(server, "Who?", *seeds, sgl=sgl)
    for words in named:
        assert words in caught.value.body["message"]
    assert caught.value.body["code"] == 400
    assert "sgl" not in caught.value.response.json()
    after = server.metrics()
    assert after.total("sgl:requests_total") == before.total("sgl:requests_total")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sgl_retention", 7, "sgl_retention: expected a number in (0, 1]; "),
        ("sgl_retention", True, "sgl_retention: expected a number in (0, 1]; "),
        ("sgl_foo", 1, "sgl_foo: unknown key, received 1; expected one of sgl_retention, "),
        ("SGL_retention", 1, "SGL_retention: unknown key, received 1; expected sgl_retention"),
    ],
)  # fmt: skip
def test_bad_key_is_a_400_on_every_endpoint_before_a_stream_begins(server, key, value, said):
    before = server.metrics().total("sgl:requests_total")
    for path in PATHS[:-1]:
        for streamed in (False, True):
            body = body_for(server, path, server.model, stream=streamed, vllm_xargs={key: value})
            status, error = refused(server, path, body)
            assert status == 400
            assert error["message"].startswith(said)
    assert server.metrics().total("sgl:requests_total") == before


def test_server_goes_on(server):
    with pytest.raises(openai.BadRequestError):
        ask(server, *SHORT, sgl={"retention": 7})
    assert ask(server, *SHORT, max_tokens=2).sgl["decision"] == "prune"
    assert server.get("/health")[0] == 200


def test_other_peoples_keys_are_not_ours(server):
    completion = ask(server, *SHORT, max_tokens=2, extra={"vllm_xargs": {"other": 1, "sgl_retention": 0.25}})
    assert completion.sgl["kept_tokens"] == 28


@pytest.mark.parametrize("key", ["sgl-retention", "SGL_retention", "sgl_Retention", "Sgl-Retention"])
def test_another_spelling_of_a_key_is_a_400_that_names_the_right_one(server, key):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(server, *SHORT, extra={"vllm_xargs": {key: 0.5}})
    assert f"{key}: unknown key, received 0.5; expected sgl_retention" in caught.value.body["message"]


@pytest.mark.parametrize("threshold", ["off", 0])
def test_what_only_the_large_engine_checks_is_a_400_on_every_path(server, threshold):
    with pytest.raises(openai.BadRequestError, match="reasoning_config is not configured"):
        ask(server, *SHORT, sgl={"exit_threshold": threshold}, extra={"thinking_token_budget": 1})


@pytest.mark.parametrize(
    "options", [{}, {"n": 8, "temperature": 1}, {"extra": {"use_beam_search": True, "n": 3}}]
)
def test_no_request_costs_more_than_one_guide_pass(server, options):
    before = server.metrics()
    ask(server, *SHORT, sgl={"exit_threshold": 1e-9, "guide_tokens": 10**9, "retention": 1e-9}, **options)
    after = server.metrics()
    guided = "sgl:guide_seconds_count"
    assert after.total("sgl:requests_total") == before.total("sgl:requests_total") + 1
    assert after.total(guided) <= before.total(guided) + 1
