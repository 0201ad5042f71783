"""Which sampling parameters an early exit respects: all of vLLM's have been looked at, later ones not."""

import logging
from types import SimpleNamespace

import pytest
from vllm import SamplingParams
from vllm.sampling_params import RepetitionDetectionParams, RequestOutputKind, StructuredOutputsParams

from vllm_sgl.guide.local.params import looking
from vllm_sgl.request import exit_rules

#: A value of every field that is not its default.
OTHER = {
    "n": 2, "presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.5, "temperature": 0.7,
    "watermarking": True, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "seed": 1, "stop": ["x"],
    "stop_token_ids": [3], "ignore_eos": True, "max_tokens": 3, "min_tokens": 2, "logprobs": 1,
    "prompt_logprobs": 1, "prompt_logprob_token_ids": [[1]], "prompt_logprob_start": 1,
    "logprob_token_ids": [1], "flat_logprobs": True, "detokenize": False, "skip_special_tokens": False,
    "spaces_between_special_tokens": False, "include_stop_str_in_output": True,
    "output_kind": RequestOutputKind.DELTA, "stream_interval": 4, "skip_clone": True,
    "output_text_buffer_length": 3, "_eos_token_id": 1, "_all_stop_token_ids": {1},
    "_watermarking_skipped": True, "structured_outputs": StructuredOutputsParams(json_object=True),
    "logit_bias": {1: 2.0}, "allowed_token_ids": [1, 2], "extra_args": {"theirs": 1}, "bad_words": ["x"],
    "_bad_words_token_ids": [[1]], "skip_reading_prefix_cache": True, "thinking_token_budget": 5,
    "repetition_detection": RepetitionDetectionParams(2, 1, 2), "routed_experts_prompt_start": 1,
    "trace_decode_token_ids": [1],
}  # fmt: skip


def test_every_field_is_tried():
    assert set(OTHER) == set(SamplingParams.__struct_fields__)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_fields(name):
    """What is not respected rules an exit out as soon as it is not the default."""
    params = SamplingParams()
    assert exit_rules.other_parameters(params) == []
    setattr(params, name, OTHER[name])
    named = "extra_args['theirs']" if name == "extra_args" else name
    assert exit_rules.other_parameters(params) == ([] if name in exit_rules.RESPECTED else [named])


def test_what_rules_an_exit_out():
    """The list that somebody should have looked at when a release of vLLM changes it."""
    assert set(OTHER) - exit_rules.RESPECTED == {
        "watermarking", "detokenize", "extra_args", "thinking_token_budget", "repetition_detection",
        "routed_experts_prompt_start", "trace_decode_token_ids",
    }  # fmt: skip


class LaterParams(SamplingParams):
    """Of a release that does not exist yet."""

    new_knob: float = 1.0


def test_a_field_that_nobody_has_looked_at_rules_exits_out():
    assert exit_rules.other_parameters(LaterParams()) == []
    assert exit_rules.other_parameters(LaterParams(new_knob=0.5)) == ["new_knob"]


@pytest.mark.parametrize("name", sorted(exit_rules.FOLLOWED))
def test_the_guide_generates_under_what_is_followed(name):
    """Stop strings apart, which are applied to its finished answer (test_params.py)."""
    most = OTHER["max_tokens"] if name == "max_tokens" else 16
    made = looking(
        SamplingParams(max_tokens=most, **({} if name == "max_tokens" else {name: OTHER[name]})), most
    )
    assert getattr(made, name) == ([] if name == "stop" else OTHER[name])


@pytest.mark.parametrize("name", sorted(exit_rules.FORCING))
def test_nothing_forces_the_guide_on_past_its_own_end(name):
    client = SamplingParams(max_tokens=40, stop=["x"], **{name: OTHER[name]})
    assert getattr(looking(exit_rules.unforced(client), 16), name) == getattr(SamplingParams(), name)
    assert getattr(client, name) == OTHER[name], "the large model is still to be given it"
    assert exit_rules.unforced(client).stop == ["x"]


def test_parameters_that_force_nothing_are_not_copied():
    params = SamplingParams(max_tokens=40)
    assert exit_rules.unforced(params) is params


def test_keys_of_ours_are_no_others():
    assert exit_rules.other_parameters(SamplingParams(extra_args={"sgl_retention": 0.5})) == []


def config(**changed):
    """A large engine's config, as far as it is asked."""
    model = {"logits_processors": None, "return_sampling_mask": False}
    parts = {"watermark_config": None, "aux_output_config": SimpleNamespace(enabled=False)}
    parts |= {name: changed.pop(name) for name in list(changed) if name in parts}
    return SimpleNamespace(model_config=SimpleNamespace(**{**model, **changed}), **parts)


@pytest.mark.parametrize(
    ("feature", "named"),
    [
        ({"watermark_config": object()}, "a watermark"),
        ({"logits_processors": ["a.B"]}, "--logits-processors"),
        ({"return_sampling_mask": True}, "return_sampling_mask"),
        ({"aux_output_config": SimpleNamespace(enabled=True)}, "auxiliary outputs"),
    ],
)
def test_features_of_the_server(feature, named, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    assert exit_rules.possible(config())
    assert caplog.text == ""
    assert not exit_rules.possible(config(**feature))
    assert f"no request exits early, whatever the threshold: the large engine has {named}" in caplog.text


def test_keys_of_a_wrapped_guide_rule_nothing_out(monkeypatch):
    params = SamplingParams(extra_args={"of_a_guide": 1, "of_a_processor": 2})
    monkeypatch.setattr(exit_rules, "GUIDE_KEYS", {"of_a_guide"})
    assert exit_rules.other_parameters(params) == ["extra_args['of_a_processor']"]
