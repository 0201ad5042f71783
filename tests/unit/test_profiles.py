"""Profiles: how they are given, what is refused, and whose name a request's model name is."""

import json
from argparse import ArgumentTypeError
from types import SimpleNamespace

import pytest
import yaml
from vllm.entrypoints.openai.models.protocol import BaseModelPath, LoRAModulePath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.lora.request import LoRARequest
from vllm.utils.argparse_utils import FlexibleArgumentParser

from vllm_sgl import plugin
from vllm_sgl.allowed import ALLOWED
from vllm_sgl.config import ProfileSettings, SGLConfig
from vllm_sgl.host.patch import unwrap
from vllm_sgl.host.request import model_names
from vllm_sgl.request import client_request
from vllm_sgl.serve.flags import add_flags, fold
from vllm_sgl.serve.profiles import Naming, parsed

FAST, GOOD = {"retention": 0.18, "exit_threshold": 0.9}, {"retention": 1.0, "exit_threshold": None}
BOTH = {"fast": FAST, "good": GOOD}
ONE = ["--sgl-profile", "fast=" + json.dumps(FAST)]


def parse(*arguments, served=None, lora=None, additional=None):
    parser = FlexibleArgumentParser()
    parser.set_defaults(
        model="M",
        served_model_name=served,
        lora_modules=lora,
        additional_config=additional or {},
        middleware=[],
    )
    parser.add_argument("--config")
    parser.add_argument("--port")
    return add_flags(parser).parse_args(["--sgl-small=S", *arguments])


def profiles(*arguments, **more):
    return fold(parse(*arguments, **more)).profiles


GOOD_TEXT = 'good={"retention": 1, "exit_threshold": "off"}'


@pytest.mark.parametrize(
    "arguments",
    [
        [*ONE, "--sgl-profile", GOOD_TEXT],
        [*ONE, GOOD_TEXT],
        ["--sgl-profile=" + ONE[1], "--sgl_profile=" + GOOD_TEXT],
        ["--sgl-profile", json.dumps({"fast": FAST, "good": GOOD})],
        [
            "--sgl-profile.fast.retention",
            "0.18",
            "--sgl-profile.fast.exit_threshold=0.9",
            "--sgl-profile",
            GOOD_TEXT,
        ],
    ],
    ids=["repeated", "several values", "one word", "object", "dotted"],
)
def test_forms_of_the_flag(arguments):
    assert profiles(*arguments) == BOTH


@pytest.mark.parametrize(
    "value",
    [[ONE[1], GOOD_TEXT], {"fast": FAST, "good": {"retention": 1, "exit_threshold": "off"}}],
    ids=["list of strings", "mapping"],
)
def test_a_config_file_of_vllm(tmp_path, value):
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump({"sgl-profile": value, "port": 1234}))
    args = parse("--config", str(file))
    assert args.port == "1234"
    assert fold(args).profiles == BOTH


def test_profiles_of_the_command_line_join_those_of_additional_config():
    own = {"sgl": {"small": "S", "profiles": {"fast": {"retention": 0.5}, "good": GOOD}}}
    assert profiles(*ONE, additional=own) == BOTH
    assert profiles(additional=own) == own["sgl"]["profiles"]


def test_every_setting_of_a_request_may_be_in_a_profile():
    values = {
        "retention": 0.2, "exit_threshold": 0.5, "guide_tokens": 4, "query_rows": "prompt",
        "policy": "tiles:0.3", "enabled": 0, "follow_ups": "late", "exit_score": "product",
    }  # fmt: skip
    assert values.keys() == ProfileSettings.model_fields.keys()
    config = SGLConfig(small="S", profiles={"all": values, "none-of-it": {}})
    assert config.profiles == {"all": values, "none-of-it": {}}
    assert SGLConfig.of({"sgl": config.model_dump()}) == config
    assert config.policies == {"": "top", "all": "tiles:0.3"}


@pytest.mark.parametrize("text", ["off", "fast", "fast:{}", "fast=", "fast=0.2x", "fast={", "{", "", "='"])
def test_what_is_no_profile_is_refused(text):
    with pytest.raises(ArgumentTypeError, match=r"expected NAME=JSON, such as fast=.*; received"):
        parsed(text)


@pytest.mark.parametrize("text", ['{"a": {}, "a": {}}', 'a={"retention": 1, "retention": 0.5}'])
def test_names_twice_in_one_value_are_refused(text):
    with pytest.raises(ArgumentTypeError, match=r"\('(a|retention)' stands there twice\)"):
        parsed(text)


def test_a_profile_twice_is_refused():
    with pytest.raises(ValueError, match="--sgl-profile fast: given twice"):
        profiles(*ONE, *ONE)


@pytest.mark.parametrize("name", ["off", "OFF", "none", "Default"])
def test_reserved_names_are_refused(name):
    with pytest.raises(
        ValueError, match=f"^--sgl-profile {name}: the name is reserved, .* expected another one"
    ):
        profiles("--sgl-profile", f"{name}={{}}")


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "a/b", "a,b", ".a", "-a", "ä", "a\n", "a'"])
def test_names_that_no_model_has_are_refused(name):
    with pytest.raises(ValueError, match=r"^--sgl-profile .*: expected a name of letters, digits, ") as error:
        profiles(f"--sgl-profile={name}={{}}")
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"retention": 7}, f"retention: expected {ALLOWED['retention']}, received 7"),
        ({"exit_threshold": False}, f"exit_threshold: expected {ALLOWED['exit_threshold']}, received False"),
        (
            {"guide_tokens": 0, "enabled": 2},
            "guide_tokens: expected a whole number >= 1, received 0; enabled: ",
        ),
        (
            {"retentoin": 0.5},
            "retentoin: unknown key, received 0.5; expected one of retention, exit_threshold, ",
        ),
        ({"sgl_retention": 0.5}, "sgl_retention: unknown key, received 0.5; expected one of retention, "),
        ({"profile": "fast"}, "profile: unknown key"),
        ({"small": "S"}, "small: unknown key"),
        ({"policy": "best"}, "policy: expected the name of a policy, 'top' or 'tiles'; received 'best'"),
        ([], "expected an object such as {'retention': 0.2}, received []"),
        (0.5, "expected an object such as {'retention': 0.2}, received 0.5"),
    ],
)
def test_bad_settings_are_refused_by_profile_and_key(values, said):
    with pytest.raises(ValueError, match="expected") as error:
        profiles("--sgl-profile", "fast=" + json.dumps(values))
    assert str(error.value).startswith(f"--sgl-profile fast: {said}")


@pytest.mark.parametrize("value", [[], "fast", 3, None])
def test_profiles_that_are_no_mapping_are_refused(value):
    with pytest.raises(ValueError, match="sgl_profiles: expected profiles by name, such as"):
        SGLConfig.parse({"small": "S", "profiles": value})
    with pytest.raises(ValueError, match="sgl_profiles fast: retention: expected"):
        SGLConfig.parse({"small": "S", "profiles": {"fast": {"retention": value}}})


@pytest.mark.parametrize(
    ("served", "names"),
    [
        (None, ["M", "M:fast", "M:good"]),
        (["M"], ["M", "M:fast", "M:good"]),
        (["A", "B"], ["A", "B", "A:fast", "A:good", "B:fast", "B:good"]),
        (["A:fast"], ["A:fast", "A:fast:fast", "A:fast:good"]),
    ],
)
def test_vllm_serves_every_name(served, names):
    args = parse("--sgl-profile", json.dumps(BOTH), served=served)
    fold(args)
    assert args.served_model_name == names
    fold(args)  # vLLM may read its arguments twice
    assert args.served_model_name == names


@pytest.mark.parametrize("served", [None, ["A", "B"]])
def test_without_profiles_the_names_stay(served):
    args = parse(served=served)
    fold(args)
    assert args.served_model_name == served


def test_names_that_are_taken_are_refused():
    with pytest.raises(
        ValueError, match="--sgl-profile fast: 'A:fast' is also one of --served-model-name; rename"
    ):
        profiles(*ONE, served=["A", "A:fast"])
    adapter = LoRAModulePath(name="M:fast", path="/adapter")
    with pytest.raises(
        ValueError, match="--sgl-profile fast: 'M:fast' is also one of --lora-modules; rename"
    ):
        profiles(*ONE, lora=[adapter])


def test_vllm_is_patched_only_where_there_are_profiles():
    places = ((BaseServing, "_check_model"), (OpenAIServingModels, "model_name"))

    def there():
        return [getattr(*place) for place in places]

    before = there()
    assert plugin._fold(parse()).profiles == {}
    assert there() == before
    try:
        assert plugin._fold(parse(*ONE)).profiles == {"fast": FAST}
        assert not set(there()) & set(before)
    finally:
        for place in places:
            unwrap(*place)
    assert there() == before


@pytest.fixture
def serving():
    """vLLM's check of a request's model, for the names of ``A`` and ``B`` with the profile ``fast``."""
    naming = Naming(["fast"])
    model_names.install(naming.note, naming.answered)
    paths = [BaseModelPath(name, "/large") for name in ("A", "B", "A:fast", "B:fast")]
    engine = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=64), renderer=None, input_processor=None
    )
    models = OpenAIServingModels(engine, paths)
    models.lora_requests["adapter"] = LoRARequest("adapter", 1, "/adapter")
    yield BaseServing(models, engine.model_config)
    unwrap(BaseServing, "_check_model")
    unwrap(OpenAIServingModels, "model_name")


async def asks(serving, name):
    """(the status of an error, the profile, the model name in the answer)"""
    about = client_request.Asked()
    with client_request.asking(about):
        error = await serving._check_model(SimpleNamespace(model=name))
        answered = serving.models.model_name(serving.models.lora_requests.get(name))
    return error and error.error.code, about.profile, answered


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("A", (None, None, "A")),
        ("B", (None, None, "A")),  # vLLM's: the first served name
        ("A:fast", (None, "fast", "A:fast")),
        ("B:fast", (None, "fast", "B:fast")),
        ("adapter", (None, None, "adapter")),
        (None, (None, None, "A")),
        ("", (None, None, "A")),
        ("A:slow", (404, None, "A")),
        ("C:fast", (404, None, "A")),
        (":fast", (404, None, "A")),
        ("adapter:fast", (404, None, "A")),
        ("A:fast:fast", (404, None, "A")),
    ],
)
async def test_whose_name_it_is(serving, name, expected):
    assert await asks(serving, name) == expected


async def test_an_unknown_profile_is_told_as_vllm_tells_of_unknown_models(serving):
    error = await serving._check_model(SimpleNamespace(model="A:slow"))
    assert error.error.message == "The model `A:slow` does not exist. Valid aliases: A, B, A:fast, B:fast."
    assert (error.error.type, error.error.param) == ("NotFoundError", "model")


async def test_an_adapter_chosen_by_modality_keeps_its_name_and_the_request_its_profile(serving):
    about = client_request.Asked()
    with client_request.asking(about):
        await serving._check_model(SimpleNamespace(model="A:fast"))
        assert serving.models.model_name(LoRARequest("image", 2, "/image")) == "image"
    assert about.profile == "fast"


async def test_where_names_are_not_validated_profiles_still_work(serving, monkeypatch):
    monkeypatch.setenv("VLLM_SKIP_MODEL_NAME_VALIDATION", "1")
    assert await asks(serving, "B:fast") == (None, "fast", "B:fast")
    for name in ("Z:fast", "A:slow", "A:fast:fast"):
        assert await asks(serving, name) == (None, None, "A")


async def test_the_models_are_listed_with_the_model_behind_them(serving):
    listed = (await serving.models.show_available_models()).data
    assert [model.id for model in listed] == ["A", "B", "A:fast", "B:fast", "adapter"]
    assert {model.root for model in listed[:4]} == {"/large"}
