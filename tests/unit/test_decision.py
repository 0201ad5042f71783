"""Who is bypassed, who may exit, and what a client is told. Pure values."""

import math
from dataclasses import replace

import pytest

from vllm_sgl.config import SGLConfig
from vllm_sgl.core import WIRE_FIELDS, Answer, Facts, Reason, Report
from vllm_sgl.decide.bypass import why_bypass, why_no_look
from vllm_sgl.decide.early_exit import why_no_exit
from vllm_sgl.decide.scores.registry import SCORES
from vllm_sgl.request.options import RequestOptions

FACTS = Facts(visual_tokens=(112, 16), prompt_tokens=150, max_tokens=8)


def bypass(facts=FACTS, retention=0.35, exit_threshold=None, enabled=True, small_context=1024):
    asked = {"sgl_retention": retention, "sgl_exit_threshold": exit_threshold, "sgl_enabled": int(enabled)}
    options = RequestOptions.parse(asked, SGLConfig(small="s"))
    return why_bypass(facts, options) or why_no_look(facts, options, None, small_context)


def facts(**changes):
    return Facts(**{"visual_tokens": (112, 16), "prompt_tokens": 150, "max_tokens": 8, **changes})


def test_ordinary_request_is_guided():
    assert bypass() is None


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        (Reason.BEAM_SEARCH, {"facts": facts(bypass=Reason.BEAM_SEARCH)}),
        (Reason.BEAM_SEARCH, {"facts": facts(bypass=Reason.BEAM_SEARCH), "enabled": False}),
        (Reason.DISABLED, {"enabled": False}),
        (Reason.DISABLED, {"enabled": False, "facts": Facts()}),
        (Reason.NO_IMAGE, {"facts": Facts(prompt_tokens=9)}),
        (Reason.NO_IMAGE, {"facts": facts(visual_tokens=(0, 0))}),
        (Reason.NOTHING_TO_DO, {"retention": 1.0}),
        (
            Reason.NOTHING_TO_DO,
            {"retention": 1.0, "exit_threshold": 0.5, "facts": facts(no_exit=Reason.TOOLS)},
        ),
        (Reason.TOO_LONG, {"small_context": 151}),
    ],
)
def test_bypass(reason, arguments):
    assert bypass(**arguments) == reason


@pytest.mark.parametrize(
    "arguments",
    [
        {"retention": 1.0, "exit_threshold": 0.5},
        {"retention": 1.0, "exit_threshold": 0.0},
        {"small_context": 152},
        {"facts": facts(visual_tokens=(0, 3))},
        {"facts": facts(no_exit=Reason.TOOLS)},
    ],
    ids=str,
)
def test_no_bypass(arguments):
    assert bypass(**arguments) is None


def answer(confidence=0.9, finished=True):
    logprobs = (math.log(confidence),) * 3 if confidence else ()
    return Answer("yes", (1, 2, 3)[: len(logprobs)], logprobs, finished, "stop" if finished else "length")


@pytest.mark.parametrize(
    ("facts", "answer", "threshold", "reason"),
    [
        (FACTS, answer(), 0.5, None),
        (FACTS, answer(confidence=0.0), 0.5, None),  # a consistency of 1 would do
        (FACTS, answer(confidence=0.0), 0.0, None),
        (FACTS, answer(confidence=0.9), 0.95, None),
        (FACTS, answer(confidence=0.89), 0.95, Reason.LOW_CONFIDENCE),
        (FACTS, answer(confidence=1.0), 1.0, None),
        (FACTS, answer(finished=False), 0.0, Reason.UNFINISHED),
        (facts(no_exit=Reason.N), answer(finished=False), 0.0, Reason.N),
        (facts(no_exit=Reason.LORA), answer(), 0.0, Reason.LORA),
    ],
)
def test_why_no_exit(facts, answer, threshold, reason):
    assert why_no_exit(facts, answer, threshold, SCORES["paper"]) == reason


@pytest.mark.parametrize(
    ("forced_tokens", "ended", "reason"),
    [
        (2, "stop", None),
        (3, "stop", Reason.FORCED_LENGTH),
        (8, "stop", Reason.FORCED_LENGTH),
        (3, "length", None),  # as long as the client wants it, without anybody forcing it on
    ],
)
def test_an_answer_that_ends_sooner_than_the_client_wants_does_not_exit(forced_tokens, ended, reason):
    """Of three tokens, the end token among them where there is one."""
    three = replace(answer(), finish_reason=ended)
    assert why_no_exit(facts(forced_tokens=forced_tokens), three, 0.0, SCORES["paper"]) == reason


def test_wire_fields_are_those_of_the_contract():
    assert WIRE_FIELDS == (
        "decision", "reason", "visual_tokens", "kept_tokens", "tiles", "encoded_tiles", "reused_tokens",
        "late_tokens", "score", "confidence", "consistency", "guide_seconds", "profile",
    )  # fmt: skip


def test_report_over_the_wire_has_no_tensors():
    report = Report(
        "prune", visual_tokens=4, kept_tokens=1, tiles=3, encoded_tiles=1, importance=[object()],
        kept=[object()], late=[object()],
    )  # fmt: skip
    assert report.as_dict() == {
        "decision": "prune",
        "reason": None,
        "visual_tokens": 4,
        "kept_tokens": 1,
        "tiles": 3,
        "encoded_tiles": 1,
        "reused_tokens": 0,
        "late_tokens": 0,
        "score": None,
        "confidence": None,
        "consistency": None,
        "guide_seconds": None,
        "profile": None,
    }


def test_reasons_are_distinct():
    reasons = [value for name, value in vars(Reason).items() if name.isupper()]
    assert len(reasons) == len(set(reasons))  # test_docs.py holds each against the documentation
