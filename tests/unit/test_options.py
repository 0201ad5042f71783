"""Settings of one request: keys above headers, above its profile, above the server's; headers are strict."""

import pytest
from vllm.exceptions import VLLMValidationError

from tests.support.asgi import App, post
from vllm_sgl.allowed import ALLOWED
from vllm_sgl.config import ProfileSettings, SGLConfig
from vllm_sgl.request.client_request import Asked
from vllm_sgl.request.options import RequestOptions, header_settings, options_of

#: A value of every setting at each level, all of them different where there are so many.
SERVER = {
    "retention": 0.1, "exit_threshold": 0.2, "guide_tokens": 3, "query_rows": "prompt", "policy": "top",
    "follow_ups": "sticky", "exit_score": "lowest", "enabled": 1,
}  # fmt: skip
PROFILE = {
    "retention": 0.4, "exit_threshold": 0.5, "guide_tokens": 6, "query_rows": "last_prompt",
    "policy": "tiles", "follow_ups": "late", "exit_score": "product", "enabled": 0,
}  # fmt: skip
HEADERS = {
    "retention": 0.7, "exit_threshold": None, "guide_tokens": 9, "query_rows": "generated",
    "policy": "tiles:0.5", "follow_ups": "off", "exit_score": "geometric_mean", "enabled": 1,
}  # fmt: skip
KEYS = {
    "retention": 0.8, "exit_threshold": 0.9, "guide_tokens": 10, "query_rows": "prompt+generated",
    "policy": "tiles:0.6", "follow_ups": "auto", "exit_score": "product_consistency", "enabled": 0,
}  # fmt: skip


def config(**profiles):
    return SGLConfig(small="S", profiles=profiles, **{k: v for k, v in SERVER.items() if k != "enabled"})


def headers_of(settings):
    texts = {name: "off" if value is None else str(value) for name, value in settings.items()}
    return [("sgl-" + name.replace("_", "-"), text) for name, text in texts.items()]


def keys_of(settings):
    return {"sgl_" + name: value for name, value in settings.items()}


@pytest.mark.parametrize("name", ProfileSettings.model_fields)
def test_each_level_wins_over_the_next(name):
    server = config(fast={name: PROFILE[name]})
    keys, headers = keys_of({name: KEYS[name]}), header_settings(headers_of({name: HEADERS[name]}))

    def asked(*what):
        return getattr(RequestOptions.parse(*what), name)

    assert asked(None, server) == SERVER[name]
    assert asked(None, server, None, "fast") == PROFILE[name]
    assert asked(None, server, headers, "fast") == HEADERS[name]
    assert asked(keys, server, headers, "fast") == KEYS[name]
    assert asked(keys, server) == KEYS[name]


def test_levels_are_merged_setting_by_setting():
    server = config(fast={"retention": 0.4, "guide_tokens": 6})
    options = RequestOptions.parse({"sgl_policy": "tiles"}, server, {"guide_tokens": 9}, "fast")
    assert options == RequestOptions(
        retention=0.4,
        exit_threshold=0.2,
        guide_tokens=9,
        query_rows="prompt",
        policy="tiles",
        follow_ups="sticky",
        exit_score="lowest",
        profile="fast",
    )


def test_a_profile_is_named_by_key_before_header_before_model():
    server = config(one={"retention": 0.11}, two={"retention": 0.22}, three={"retention": 0.33})

    def asked(*what):
        options = RequestOptions.parse(*what)
        return options.profile, options.retention

    assert asked(None, server, None, "one") == ("one", 0.11)
    assert asked(None, server, {"profile": "two"}, "one") == ("two", 0.22)
    assert asked({"sgl_profile": "three"}, server, {"profile": "two"}, "one") == ("three", 0.33)
    assert asked({"sgl_profile": "three"}, server, {"retention": 0.7}) == ("three", 0.7)


@pytest.mark.parametrize("name", ["slow", "", "off", "Fast", None, 1, ["fast"]])
def test_an_unknown_profile_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"^sgl_profile: expected 'fast' or 'good', received "):
        RequestOptions.parse({"sgl_profile": name}, config(fast={}, good={}))
    with pytest.raises(ValueError, match=r"^sgl-profile: expected none, for the server has no profiles"):
        RequestOptions.parse(None, config(), {"profile": name})


def test_headers_are_read():
    assert header_settings(headers_of(HEADERS)) == {**HEADERS, "exit_threshold": "off"}
    assert RequestOptions.parse(None, config(), header_settings(headers_of(HEADERS))) == RequestOptions(
        **HEADERS
    )
    assert header_settings([("sgl-exit-threshold", "OFF"), ("Accept", "*/*"), ("sglang-x", "1")]) == {
        "exit_threshold": "OFF"
    }
    assert header_settings([]) == {}


@pytest.mark.parametrize(
    ("text", "value"), [("0.2", 0.2), ("1", 1), ("2e-1", 0.2), ("1.0", 1.0), ("0.25E+0", 0.25)]
)
def test_numbers_are_those_of_json(text, value):
    assert RequestOptions.parse(None, config(), header_settings([("sgl-retention", text)])).retention == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "off", ".5", "5.", "+0.5", "0_5", "00.5", "0,5", "0x1", "nan", "NaN", "inf", "1e", "0.5 ",
     "٠.٥", "true", "null", "[0.5]", '"0.5"', "0.5\n", "half", "9" * 5000],
)  # fmt: skip
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="expected") as error:
        header_settings([("sgl-retention", text)])
    assert str(error.value) == f"sgl-retention: expected {ALLOWED['retention']}, received {text!r}"


@pytest.mark.parametrize(
    ("header", "text", "received"),
    [
        ("retention", "0", "0"), ("retention", "1.5", "1.5"), ("retention", "-0.2", "-0.2"),
        ("retention", "1e999", "inf"), ("exit-threshold", "2", "2"), ("guide-tokens", "0", "0"),
        ("guide-tokens", "2.5", "2.5"), ("query-rows", "all", "'all'"), ("enabled", "2", "2"),
        ("policy", "", "''"),
    ],
)  # fmt: skip
def test_a_header_out_of_range_is_refused_by_name(header, text, received):
    with pytest.raises(VLLMValidationError) as error:
        options_of(Asked(headers=[(f"sgl-{header}", text)]), {}, config())
    allowed = ALLOWED[header.replace("-", "_")]
    assert error.value.args == (f"sgl-{header}: expected {allowed}, received {received}",)
    assert error.value.parameter == "headers"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            "sgl-foo",
            "one of sgl-retention, sgl-exit-threshold, sgl-exit-score, sgl-guide-tokens, sgl-query-rows",
        ),
        ("sgl-small", "one of sgl-retention"),
        ("sgl-", "one of sgl-retention"),
        ("sgl_retention", "sgl-retention"),
        ("sgl-guide_tokens", "sgl-guide-tokens"),
    ],
)
def test_an_unknown_header_is_refused_with_the_right_one(header, expected):
    with pytest.raises(
        VLLMValidationError, match=f"{header}: unknown header, received '1'; expected {expected}"
    ):
        options_of(Asked(headers=[(header, "1")]), {}, config())


@pytest.mark.parametrize(
    "text", ["1_0", " 10 ", "+10", "0x10", "010", "1e", "Infinity", "NaN", "", "9" * 5000]
)
@pytest.mark.parametrize("key", ["retention", "exit_threshold", "guide_tokens", "enabled"])
def test_a_number_that_comes_as_a_text_is_written_as_in_json(key, text):
    with pytest.raises(ValueError, match=f"^sgl_{key}: expected .* received "):
        RequestOptions.parse({"sgl_" + key: text}, config())
    assert RequestOptions.parse({"sgl_" + key: "1"}, config()) == RequestOptions.parse(
        {"sgl_" + key: 1}, config()
    )


def test_a_header_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match=r"sgl-retention: expected once, received 0.5 and '0.5'"):
        header_settings([("sgl-retention", "0.5"), ("SGL-Retention", "0.5")])


@pytest.mark.parametrize("policy", ["best", "top:1", "tiles:x"])
def test_an_unknown_policy_is_refused_where_it_was_named(policy):
    with pytest.raises(VLLMValidationError, match=r"^sgl-policy: "):
        options_of(Asked(headers=[("sgl-policy", policy)]), {"sgl_policy": "top"}, config())
    with pytest.raises(VLLMValidationError, match=r"^sgl_policy: ") as error:
        options_of(Asked(headers=[("sgl-policy", "top")]), {"sgl_policy": policy}, config())
    assert error.value.parameter == "vllm_xargs"


def test_a_bad_header_is_refused_even_below_a_good_key():
    with pytest.raises(VLLMValidationError, match=r"^sgl-retention: expected .* received 7"):
        options_of(Asked(headers=[("sgl-retention", "7")]), {"sgl_retention": 0.5}, config())


def test_everything_that_was_asked_comes_together():
    about = Asked(headers=[("sgl-guide-tokens", "9")], profile="fast")
    options = options_of(about, {"sgl_exit_threshold": "off", "other": 1}, config(fast={"retention": 0.4}))
    assert options == RequestOptions(
        retention=0.4,
        exit_threshold=None,
        guide_tokens=9,
        query_rows="prompt",
        policy="top",
        follow_ups="sticky",
        exit_score="lowest",
        profile="fast",
    )


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ([], []),
        ([(b"accept", b"*/*"), (b"sglang-x", b"1"), (b"x-sgl-retention", b"1")], []),
        ([(b"SGL-Retention", b"0.2"), (b"sgl_x", b"\xff")], [("sgl-retention", "0.2"), ("sgl_x", "\xff")]),
        ([(b"sgl-enabled", b"0"), (b"sgl-enabled", b"1")], [("sgl-enabled", "0"), ("sgl-enabled", "1")]),
    ],
)
async def test_headers_of_ours_are_noted(headers, ours):
    app = App([b"{}"])
    await post(app, scope={"headers": headers})
    assert app.about.headers == ours


def validations(monkeypatch, about, *extra_args):
    """How often pydantic was asked while so many engine requests of one client's were made."""
    calls = []
    init = RequestOptions.__init__
    monkeypatch.setattr(RequestOptions, "__init__", lambda *a, **k: calls.append(k) or init(*a, **k))
    found = [options_of(about, keys, config(fast={"retention": 0.4})) for keys in extra_args]
    return len(calls), found


def test_settings_are_validated_once_per_client_request(monkeypatch):
    keys = {"sgl_exit_threshold": 0.3}
    about = Asked(keys=keys, headers=[("sgl-guide-tokens", "9")], profile="fast")
    count, found = validations(monkeypatch, about, keys, {**keys, "theirs": 1}, keys)
    assert (count, {option.exit_threshold for option in found}) == (1, {0.3})


def test_prompts_of_a_python_program_have_settings_of_their_own(monkeypatch):
    count, found = validations(monkeypatch, Asked(), {"sgl_retention": 0.5}, {"sgl_retention": 0.6}, None, {})
    assert (count, [option.retention for option in found]) == (3, [0.5, 0.6, 0.1, 0.1])
