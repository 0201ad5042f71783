"""``MODEL:NAME`` and ``sgl-*`` headers over HTTP, by unmodified clients."""

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import anthropic
import openai
import pytest

from tests.serve.asking import SHORT, VISUAL, ask, content, request, same_report, text
from tests.serve.conftest import PROFILES
from tests.serve.test_other_endpoints import messages_body, post
from tests.support.server import REQUEST_TIMEOUT

QUESTION, SEED = SHORT
FAST = int(PROFILES["fast"]["retention"] * VISUAL)
DEFAULT = int(0.35 * VISUAL)
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize"]


def body_for(server, path, model, **options):
    """The question for an endpoint; those for text alone get text alone."""
    if path == "/v1/messages":
        return {**messages_body(server, *SHORT), "model": model, **options}
    body = {"model": model, **({} if path == "/tokenize" else {"temperature": 0}), **options}
    if path == "/v1/responses":
        image = {"type": "input_image", "image_url": content(QUESTION, (SEED,))[0]["image_url"]["url"]}
        parts = [{**image, "detail": "auto"}, {"type": "input_text", "text": QUESTION}]
        return {**body, "max_output_tokens": 12, "input": [{"role": "user", "content": parts}]}
    if path == "/v1/chat/completions":
        return {
            **body,
            "max_tokens": 12,
            "messages": [{"role": "user", "content": content(QUESTION, (SEED,))}],
        }
    return {**body, "prompt": "Who is it?", **({} if path == "/tokenize" else {"max_tokens": 2})}


def refused(server, path, body, headers=()):
    """(status, the error object)"""
    address = f"http://127.0.0.1:{server.port}{path}"
    sent = Request(address, json.dumps(body).encode(), {"content-type": "application/json", **dict(headers)})
    with pytest.raises(HTTPError) as caught:
        urlopen(sent, timeout=REQUEST_TIMEOUT)
    return caught.value.code, json.loads(caught.value.read())["error"]


def ask_profile(server, name, *, client=None, **options):
    client = client or server.client
    return client.chat.completions.create(model=f"{server.model}:{name}", **request(*SHORT, **options))


def test_profiles_are_listed_beside_the_model(server):
    listed = server.client.models.list().data
    assert [model.id for model in listed] == [server.model, *(f"{server.model}:{name}" for name in PROFILES)]
    assert {model.root for model in listed} == {server.model}


def test_a_profile_has_its_settings_and_the_model_alone_the_servers(server):
    plain = ask(server, *SHORT)
    assert (plain.sgl["profile"], plain.sgl["kept_tokens"], plain.model) == (None, DEFAULT, server.model)
    fast = ask_profile(server, "fast")
    assert (fast.sgl["profile"], fast.sgl["kept_tokens"]) == ("fast", FAST)
    by_keys = ask(server, *SHORT, sgl=PROFILES["fast"])
    assert text(fast) == text(by_keys)
    assert same_report(fast.sgl, {**by_keys.sgl, "profile": "fast"})
    named = ask(server, *SHORT, sgl={"profile": "fast"})
    assert same_report(named.sgl, fast.sgl)
    assert named.model == server.model
    assert ask_profile(server, "exits").sgl["decision"] == "exit"
    off = ask_profile(server, "plain").sgl
    assert (off["decision"], off["reason"], off["profile"]) == ("bypass", "disabled", "plain")


@pytest.mark.parametrize("path", PATHS)
def test_every_endpoint_answers_to_a_profile(server, path):
    answer = post(server, path, body_for(server, path, f"{server.model}:fast"))
    if path == "/tokenize":
        assert answer["tokens"] == post(server, path, body_for(server, path, server.model))["tokens"]
        return
    assert answer["model"] == f"{server.model}:fast"
    assert answer["sgl"]["profile"] == "fast"
    assert answer["sgl"]["kept_tokens"] == (0 if path == "/v1/completions" else FAST)


@pytest.mark.parametrize("path", PATHS[:-1])
def test_streams_carry_the_name_that_was_asked_for(server, path):
    name = f"{server.model}:fast"
    events = post(server, path, body_for(server, path, name, stream=True))
    inside = [event.get("response") or event.get("message") or event for event in events]
    assert {part["model"] for part in inside if "model" in part} == {name}
    assert {event["sgl"]["profile"] for event in events if "sgl" in event} == {"fast"}


def test_each_conversation_of_a_batch_has_the_profile(server):
    messages = [[{"role": "user", "content": content(QUESTION, (seed,))}] for seed in (1, 2)]
    body = {"model": f"{server.model}:fast", "messages": messages, "max_tokens": 2}
    answer = post(server, "/v1/chat/completions/batch", body)
    assert answer["model"] == f"{server.model}:fast"
    assert [choice["sgl"]["kept_tokens"] for choice in answer["choices"]] == [FAST, FAST]
    assert {choice["sgl"]["profile"] for choice in answer["choices"]} == {"fast"}


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_profile_is_an_unknown_model(server, path):
    status, error = refused(server, path, body_for(server, path, f"{server.model}:slow"))
    other, of_vllm = refused(server, path, body_for(server, path, "slow"))
    assert (status, other) == (404, 404)
    # vLLM hides paths, and the model's name is one here.
    assert error["message"].replace("<path>:slow", "slow") == of_vllm["message"]
    assert "<path>:fast" in error["message"]


def kept(completion):
    return completion.sgl["kept_tokens"]


def test_keys_win_over_headers_and_headers_over_the_profile(server):
    client = server.client.with_options(default_headers={"SGL-Retention": "0.5", "sgl-policy": "top"})
    assert kept(ask_profile(server, "fast", client=client)) == VISUAL // 2
    assert kept(ask_profile(server, "fast", client=client, sgl={"retention": 0.75})) == VISUAL * 3 // 4
    (once,) = [
        chunk.sgl
        for chunk in ask_profile(server, "fast", client=client, stream=True)
        if chunk.choices and chunk.choices[0].finish_reason
    ]
    assert (once["kept_tokens"], once["profile"]) == (VISUAL // 2, "fast")
    by_header = ask(server, *SHORT, extra_headers={"sgl-profile": "fast"})
    assert (by_header.sgl["profile"], kept(by_header)) == ("fast", FAST)


def test_headers_from_the_environment(server, monkeypatch):
    """As of a program that nobody can change."""
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "sgl-retention: 0.25\nsgl-exit-threshold: off")
    client = server.new_client()
    completion = client.chat.completions.create(model=server.model, **request(*SHORT))
    assert (kept(completion), completion.sgl["reason"]) == (VISUAL // 4, None)


def test_headers_of_another_sdk(server):
    client = anthropic.Anthropic(
        base_url=f"http://127.0.0.1:{server.port}", api_key="none", max_retries=0,
        default_headers={"sgl-exit-threshold": "0", "sgl-guide-tokens": "32"},
    )  # fmt: skip
    body = messages_body(server, *SHORT)
    body.pop("temperature")
    answer = client.messages.create(**body)
    assert answer.sgl["decision"] == "exit"


BAD = [
    (
        "sgl-retention",
        "1.5",
        "sgl-retention: expected a number in (0, 1]; 1 keeps every visual token, received 1.5",
    ),
    (
        "sgl-retention",
        "half",
        "sgl-retention: expected a number in (0, 1]; 1 keeps every visual token, received 'half'",
    ),
    ("sgl-enabled", "no", "sgl-enabled: expected 0 or 1, received 'no'"),
    ("sgl-policy", "best", "sgl-policy: expected the name of a policy, 'top' or 'tiles'; received 'best'"),
    ("sgl-profile", "slow", "sgl-profile: expected 'fast' or 'exits' or 'plain', received 'slow'"),
    ("sgl-foo", "1", "sgl-foo: unknown header, received '1'; expected one of sgl-retention, "),
    ("sgl_retention", "0.5", "sgl_retention: unknown header, received '0.5'; expected sgl-retention"),
]


@pytest.mark.parametrize(("header", "value", "said"), BAD)
def test_a_bad_header_is_a_400_that_names_it(server, header, value, said):
    before = server.metrics().total("sgl:requests_total")
    for path in PATHS[:-1]:
        for stream in (False, True):
            body = body_for(server, path, server.model, stream=stream)
            status, error = refused(server, path, body, {header: value})
            assert status == 400
            assert error["message"].startswith(said)
    with pytest.raises(openai.BadRequestError):
        ask(server, *SHORT, sgl={"retention": 0.5}, extra_headers={header: value})
    assert server.metrics().total("sgl:requests_total") == before


def test_metrics_carry_the_profile(server):
    series = ("requests_total", "visual_tokens_total", "tiles_total", "guide_seconds_count")

    def counted(profile):
        scrape = server.metrics()
        return {name: scrape.total(f"sgl:{name}", profile=profile) for name in series}

    before = {profile: counted(profile) for profile in ("", "fast", "exits")}
    ask_profile(server, "fast")
    after = {profile: counted(profile) for profile in ("", "fast", "exits")}
    grown = {name: after["fast"][name] - before["fast"][name] for name in series}
    assert grown["requests_total"] == grown["guide_seconds_count"] == 1
    assert grown["visual_tokens_total"] == VISUAL + FAST
    assert (after[""], after["exits"]) == (before[""], before["exits"])
