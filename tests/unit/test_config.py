"""Settings: ranges, forms, and error texts that name key, what is allowed and what came."""

import json
import pickle
import re
from copy import deepcopy
from typing import get_args

import pytest

from vllm_sgl.allowed import ALLOWED
from vllm_sgl.config import CarriedSettings, QueryRows, SGLConfig, Views
from vllm_sgl.request.options import RequestOptions
from vllm_sgl.sizes import parse_size


def config(**values):
    return SGLConfig.parse({"small": "small-model", **values})


def test_defaults_are_those_of_the_contract():
    assert config().model_dump() == {
        "small": "small-model",
        "retention": 0.35,
        "exit_threshold": None,
        "exit_score": "paper",
        "guide_tokens": 32,
        "query_rows": "last_turn+generated",
        "policy": "top",
        "follow_ups": "auto",
        "hot_after": "auto",
        "consistency_retention": 0.05,
        "positions": "original",
        "views": "auto",
        "small_memory": "auto",
        "small_args": {},
        "feature_cache": "auto",
        "guide_timeout": 60.0,
        "guide_memory": 1024,
        "break_even": "auto",
        "shadow": False,
        "on_error": "fallback",
        "profiles": {},
        "log": None,
        "shadow_log": None,
        "log_size": 64 << 20,
        "log_text": False,
    }


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        config().retention = 1.0


GOOD = [
    ("retention", 1, 1.0),
    ("retention", "0.09", 0.09),
    ("retention", 1e-9, 1e-9),
    ("exit_threshold", 0, 0.0),
    ("exit_threshold", "1", 1.0),
    ("exit_threshold", "off", None),
    ("exit_threshold", "OFF", None),
    ("exit_threshold", None, None),
    ("guide_tokens", 1, 1),
    ("guide_tokens", "64", 64),
    ("guide_memory", 0, 0),
    *(("query_rows", choice, choice) for choice in get_args(QueryRows)),
    ("consistency_retention", 1.0, 1.0),
    ("positions", "packed", "packed"),
    *(("views", choice, choice) for choice in get_args(Views)),
    ("small_memory", "auto", "auto"),
    ("small_memory", 0.25, 0.25),
    ("small_memory", "0.25", 0.25),
    ("small_memory", "4GiB", 4 << 30),
    ("small_memory", "1.5 gb", 3 << 29),
    ("small_memory", str(1 << 31), 1 << 31),
    ("feature_cache", "64MiB", 64 << 20),
    ("feature_cache", 0, 0),
    ("feature_cache", "0", 0),
    ("guide_timeout", 0.5, 0.5),
    ("shadow", True, True),
    ("on_error", "fail", "fail"),
    ("small_args", {"max_model_len": 64}, {"max_model_len": 64}),
    ("log", "requests.jsonl", "requests.jsonl"),
    ("log", "off", None),
    ("shadow_log", "a/b.jsonl", "a/b.jsonl"),
    ("log_size", "4KiB", 4096),
    ("log_text", True, True),
]


@pytest.mark.parametrize(("key", "value", "parsed"), GOOD, ids=lambda value: repr(value))
def test_value_in_range_is_taken(key, value, parsed):
    found = getattr(config(**{key: value}), key)
    assert found == parsed
    assert type(found) is type(parsed)


BAD = [
    *(("retention", value) for value in (0, -0.1, 1.0001, "half", None, float("nan"))),
    *(("exit_threshold", value) for value in (-0.01, 1.01, "on")),
    *(("guide_tokens", value) for value in (0, -3, 1.5, "many")),
    *(("guide_memory", value) for value in (-1, 1.5, "some")),
    *(("query_rows", value) for value in ("generated+prompt", "all", "", None, 1)),
    *(("consistency_retention", value) for value in (0, 1.5)),
    *(("positions", value) for value in ("absolute", "", None)),
    *(("small_memory", value) for value in (0.0, "0", -1.0, "-1", "lots", "4GiBs", True, "0.0", 8, "1")),
    *(("feature_cache", value) for value in (-1, "64", "-1MiB", "big", True, None) if value != "64"),
    *(("guide_timeout", value) for value in (0, -1)),
    ("shadow", "perhaps"),
    ("on_error", "ignore"),
    ("small_args", "--max-model-len 3"),
    ("small", ""),
    ("log", ""),
    ("log", 3),
    *(("log_size", value) for value in (0, 4095, "big", True, -1)),
    ("log_text", "perhaps"),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=lambda value: repr(value))
def test_value_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match="expected") as error:
        config(**{key: value})
    assert str(error.value) == f"sgl_{key}: expected {ALLOWED[key]}, received {value!r}"


def test_words_about_query_rows_name_every_choice():
    assert re.findall("'(.*?)'", ALLOWED["query_rows"]) == list(get_args(QueryRows))


def test_every_setting_has_its_words():
    assert set(ALLOWED) == set(SGLConfig.model_fields) | set(RequestOptions.model_fields)


def test_unknown_key_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"retentoin: unknown key, received 0.5; expected one of") as error:
        config(retentoin=0.5)
    assert all(name in str(error.value) for name in SGLConfig.model_fields)


def test_missing_small_model_is_named():
    with pytest.raises(ValueError, match="small: missing; expected the path or name of a small"):
        SGLConfig.parse({"retention": 0.5})


def test_several_errors_are_told_at_once():
    with pytest.raises(ValueError, match=r"sgl_retention: .*; sgl_guide_tokens: "):
        config(retention=2, guide_tokens=0)


@pytest.mark.parametrize("value", ["small-model", 3, ["small"], None])
def test_settings_that_are_no_object_are_refused(value):
    with pytest.raises(ValueError, match="expected an object, received"):
        SGLConfig.of({"sgl": value})


@pytest.mark.parametrize("additional", [None, {}, {"other": 1}, "sgl", 3])
def test_sgl_is_off_without_its_key(additional):
    assert SGLConfig.of(additional) is None


@pytest.mark.filterwarnings("error")  # pydantic warns of a value that is not of its field's type
def test_settings_survive_the_way_to_another_process():
    settings = config(retention=0.5, exit_threshold="off", small_memory="4GiB", feature_cache="1MiB")
    assert SGLConfig.of({"other": 1, "sgl": settings.model_dump()}) == settings


def test_settings_that_a_config_carries_are_not_parsed_again():
    settings = SGLConfig(small="S", retention=0.3)
    carried = CarriedSettings(settings)
    assert SGLConfig.of({"sgl": carried}) is settings
    assert json.loads(json.dumps(carried)) == settings.model_dump()  # what vLLM sees
    for copied in (deepcopy(carried), pickle.loads(pickle.dumps(carried))):
        assert (copied, SGLConfig.of({"sgl": copied})) == (carried, settings)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1KB", 1024), ("1KiB", 1024), ("2mb", 2 << 20), ("1.5GiB", 3 << 29), ("1 TiB", 1 << 40),
        (" 7MiB ", 7 << 20), ("512", 512), (512, 512), (1.9, 1), (0, 0),
    ],
)  # fmt: skip
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1 PiB", "-1KB", "1e3", "1,5GiB", -1, True, None, [1]])
def test_bad_sizes(text):
    with pytest.raises(ValueError, match="expected a size in bytes or such as"):
        parse_size(text)


def test_request_without_keys_has_the_servers_settings():
    settings = {
        "retention": 0.2, "exit_threshold": 0.7, "guide_tokens": 5, "query_rows": "last_prompt",
        "policy": "other",
    }  # fmt: skip
    server = config(**settings)
    for extra in (None, {}, {"other": 5}):
        options = RequestOptions.parse(extra, server)
        assert options == RequestOptions(**settings, enabled=1)


def test_request_overrides_the_server():
    asked = {
        "retention": 1,
        "exit_threshold": "off",
        "guide_tokens": 3,
        "query_rows": "generated",
        "policy": "tiles",
        "enabled": 0,
    }
    keys = {f"sgl_{name}": value for name, value in asked.items()}
    options = RequestOptions.parse({**keys, "x": 1}, config(exit_threshold=0.5))
    assert options == RequestOptions(**{**asked, "exit_threshold": None})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("retention", 0), ("retention", 1.5), ("retention", "all"), ("exit_threshold", 2),
        ("guide_tokens", 0), ("guide_tokens", 2.5), ("enabled", 2), ("enabled", -1), ("enabled", "maybe"),
        ("query_rows", "all"), ("query_rows", 1), ("query_rows", ["prompt"]),
    ],
)  # fmt: skip
def test_bad_request_value_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match="expected") as error:
        RequestOptions.parse({f"sgl_{key}": value}, config())
    assert str(error.value) == f"sgl_{key}: expected {ALLOWED[key]}, received {value!r}"


@pytest.mark.parametrize(
    "key", ["sgl_retention", "sgl_exit_threshold", "sgl_guide_tokens", "sgl_query_rows", "sgl_policy"]
)
@pytest.mark.parametrize("value", [True, False])
def test_booleans_are_no_numbers(key, value):
    """For Python true is 1, which would be in range for most of them."""
    with pytest.raises(ValueError, match=f"^{key}: expected .*, received {value}$"):
        RequestOptions.parse({key: value}, config())


def test_booleans_are_no_settings_either():
    for name in ("retention", "exit_threshold", "guide_tokens", "guide_timeout", "small_memory"):
        with pytest.raises(ValueError, match="received True"):
            config(**{name: True})
    assert config(shadow=True).shadow


@pytest.mark.parametrize("value", [True, 1, "1"])
def test_a_switch_may_be_a_boolean(value):
    assert RequestOptions.parse({"sgl_enabled": value}, config()).enabled == 1


@pytest.mark.parametrize(
    ("key", "right"),
    [
        ("sgl-retention", "sgl_retention"),
        ("SGL_retention", "sgl_retention"),
        ("sgl_Retention", "sgl_retention"),
        ("Sgl-Exit-Threshold", "sgl_exit_threshold"),
        ("SGL_NOTHING", "one of sgl_retention, sgl_exit_threshold, "),
    ],
)
def test_other_spellings_are_refused_with_the_right_one(key, right):
    with pytest.raises(ValueError, match=f"^{key}: unknown key, received 0.5; expected {right}"):
        RequestOptions.parse({key: 0.5}, config())


@pytest.mark.parametrize("key", ["sgl", "sglang_x", "SGLANG_X", "other_sgl_retention"])
def test_keys_that_only_look_like_ours(key):
    RequestOptions.parse({key: object()}, config())


@pytest.mark.parametrize("key", ["sgl_small", "sgl_positions", "sgl_"])
def test_unknown_request_key_is_refused(key):
    with pytest.raises(ValueError, match=f"{key}: unknown key, received 1; expected one of sgl_retention"):
        RequestOptions.parse({key: 1}, config())
