"""``--sgl-*`` flags: one per setting, folded into vLLM's additional config."""

from argparse import ArgumentParser, Namespace

import pytest

from vllm_sgl.allowed import ALLOWED
from vllm_sgl.config import SGLConfig, named
from vllm_sgl.serve.flags import MIDDLEWARE, add_flags, fold


def parse(*arguments, **defaults):
    parser = ArgumentParser()
    parser.set_defaults(additional_config={}, middleware=[], **defaults)
    return add_flags(parser).parse_args(arguments)


def test_every_setting_is_a_flag():
    text = add_flags(ArgumentParser()).format_help()
    for name in SGLConfig.model_fields:
        assert named(name, "--sgl-") in text


def test_help_tells_range_and_default():
    text = " ".join(add_flags(ArgumentParser()).format_help().split())
    assert ALLOWED["retention"] in text
    for default in ("(default: 0.35)", "(default: off)", "(default: auto)", "(default: fallback)"):
        assert default in text
    assert ALLOWED["query_rows"] + " (default: last_turn+generated)" in text


def test_without_flags_nothing_changes():
    args = parse()
    before = dict(vars(args))
    assert fold(args) is None
    assert vars(args) == before


def test_flags_become_settings():
    args = parse(
        "--sgl-small", "S", "--sgl-retention", "0.5", "--sgl-exit-threshold", "off", "--sgl-guide-tokens=9",
        "--sgl-positions", "packed", "--sgl-small-memory", "2GiB", "--sgl-shadow", "--sgl-on-error", "fail",
        "--sgl-small-args", '{"max_model_len": 64}', "--sgl-feature-cache", "0",
        "--sgl-consistency-retention", "0.1", "--sgl-guide-timeout", "2.5", "--sgl-query-rows", "last_prompt",
        "--sgl-break-even=off",
    )  # fmt: skip
    expected = SGLConfig(
        small="S", retention=0.5, exit_threshold=None, guide_tokens=9, positions="packed",
        small_memory="2GiB", shadow=True, on_error="fail", small_args={"max_model_len": 64},
        feature_cache=0, consistency_retention=0.1, guide_timeout=2.5, query_rows="last_prompt",
        break_even="off",
    )  # fmt: skip
    assert fold(args) == expected
    assert SGLConfig.of(args.additional_config) == expected
    assert args.middleware == [MIDDLEWARE]


def test_additional_config_alone_turns_sgl_on():
    args = parse()
    args.additional_config = {"other": 1, "sgl": {"small": "S", "retention": 0.2}}
    config = fold(args)
    assert (config.small, config.retention) == ("S", 0.2)
    assert args.additional_config == {"other": 1, "sgl": config.model_dump()}
    assert args.middleware == [MIDDLEWARE]


def test_flags_win_over_additional_config_key_by_key():
    args = parse("--sgl-retention", "0.7")
    args.additional_config = {"sgl": {"small": "S", "retention": 0.2, "guide_tokens": 4}}
    config = fold(args)
    assert (config.small, config.retention, config.guide_tokens) == ("S", 0.7, 4)


def test_the_users_own_dict_is_left_alone():
    given = {"sgl": {"small": "S"}}
    args = parse("--sgl-retention", "0.7")
    args.additional_config = given
    fold(args)
    assert given == {"sgl": {"small": "S"}}


def test_folding_twice_is_folding_once():
    args = parse("--sgl-small", "S")
    first = fold(args)
    additional, middleware = args.additional_config, args.middleware
    assert fold(args) == first
    assert (args.additional_config, args.middleware) == (additional, middleware)


def test_other_middleware_is_around_ours():
    """vLLM's app has the last one outermost: one that compresses responses compresses ours, too."""
    args = parse("--sgl-small", "S")
    args.middleware = ["mine"]
    fold(args)
    assert args.middleware == [MIDDLEWARE, "mine"]


def test_commands_without_middleware_or_additional_config():
    args = Namespace(sgl_small="S")
    assert fold(args).small == "S"
    assert SGLConfig.of(args.additional_config).small == "S"
    assert not hasattr(args, "middleware")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--sgl-retention", "0.5"], "--sgl-retention"),
        (["--sgl-shadow", "--sgl-guide-tokens", "3"], "--sgl-guide-tokens, --sgl-shadow"),
    ],
)
def test_flags_without_a_small_model_are_refused(arguments, named):
    with pytest.raises(ValueError, match=f"received {named} without --sgl-small: name the small model"):
        fold(parse(*arguments))


def test_settings_without_a_small_model_are_refused():
    args = parse()
    args.additional_config = {"sgl": {"smal": "x"}}
    with pytest.raises(ValueError, match=r"--sgl-small: missing; .*--sgl-smal: unknown key"):
        fold(args)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("retention", "0"),
        ("exit-threshold", "1.5"),
        ("guide-tokens", "0"),
        ("query-rows", "all"),
        ("positions", "x"),
        ("on-error", "x"),
    ],
)
def test_bad_value_names_the_key_the_range_and_the_value(flag, value):
    with pytest.raises(ValueError, match="expected") as error:
        fold(parse("--sgl-small", "S", f"--sgl-{flag}", value))
    allowed = ALLOWED[flag.replace("-", "_")]
    assert str(error.value) == f"--sgl-{flag}: expected {allowed}, received {value!r}"


def test_additional_config_that_is_no_object_is_a_value_error():
    args = parse()
    args.additional_config = {"sgl": "S"}
    with pytest.raises(ValueError, match="sgl"):
        fold(args)
