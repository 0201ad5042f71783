"""A bad ``sgl_*`` key is a 400 that names the key, what is allowed and what came."""

import openai
import pytest

from tests.serve.asking import SHORT, ask, stream

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


def test_server_goes_on(server):
    with pytest.raises(openai.BadRequestError):
        ask(server, *SHORT, sgl={"retention": 7})
    assert ask(server, *SHORT, max_tokens=2).sgl["decision"] == "prune"
    assert server.get("/health")[0] == 200


def test_other_peoples_keys_are_not_ours(server):
    completion = ask(server, *SHORT, max_tokens=2, extra={"vllm_xargs": {"other": 1, "sgl_retention": 0.25}})
    assert completion.sgl["kept_tokens"] == 28
