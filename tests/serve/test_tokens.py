"""Prompts that come as tokens, `/inference/v1/generate`: guided, with a report, and never an exit."""

from urllib.error import HTTPError

import pytest

from tests.serve.asking import SHORT, ask, content, request, text
from tests.serve.test_other_endpoints import as_headers, post, post_for_headers
from tests.support.rendering import chat_prompt


def tokens_body(server, question, seed, **params):
    """The question as tokens, as whoever renders prompts elsewhere sends it."""
    asked = {"model": server.model, "prompt": chat_prompt(question, 1), "add_special_tokens": False}
    ids = post(server, "/tokenize", asked)["tokens"]
    image = {"type": "image_url", "url": content(question, (seed,))[0]["image_url"]["url"]}
    return {
        "model": server.model, "token_ids": ids, "content_parts": [image],
        "sampling_params": {"temperature": 0, "max_tokens": 12, **params}, "output_mode": "text",
    }  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
def test_tokens(server, streamed):
    """Guided, but nobody knows whether their prompt offers tools."""
    body = {**tokens_body(server, *SHORT, extra_args={"sgl_exit_threshold": 0}), "stream": streamed}
    answer, headers = post_for_headers(server, "/inference/v1/generate", body)
    carrying = [chunk for chunk in answer if "sgl" in chunk] if streamed else [answer]
    assert {(chunk["sgl"]["decision"], chunk["sgl"]["reason"]) for chunk in carrying} == {("prune", "unseen")}
    assert carrying[0]["sgl"]["kept_tokens"] == 39
    assert headers == as_headers(carrying[0]["sgl"])
    chunks = answer if streamed else [answer]
    said = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    assert said == text(ask(server, *SHORT))


@pytest.mark.parametrize("key", [{"sgl_retention": True}, {"sgl_retention": 7}, {"SGL_retention": 1}])
def test_bad_keys_beside_tokens(server, key):
    with pytest.raises(HTTPError) as caught:
        post(server, "/inference/v1/generate", tokens_body(server, *SHORT, extra_args=key))
    assert caught.value.code == 400


@pytest.mark.parametrize("key", [{}, {"sgl_enabled": 0}])
def test_rendered_features_that_do_not_fit_are_refused(server, key):
    """vLLM 0.32 leaves out which positions of InternVL's placeholders are visual tokens. Without SGL its
    engine ends here."""
    body = {"model": server.model, "messages": request(*SHORT)["messages"], "max_tokens": 4}
    rendered = post(server, "/v1/chat/completions/render", body)
    rendered["sampling_params"]["extra_args"] = key
    with pytest.raises(HTTPError) as caught:
        post(server, "/inference/v1/generate", rendered)
    assert caught.value.code == 400
    assert "expected pixels of the 114 visual tokens that the prompt has" in caught.value.read().decode()
    assert ask(server, *SHORT, max_tokens=2).sgl["decision"] == "prune"
