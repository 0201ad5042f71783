"""The report as headers: one per value that is there, and of several prompts what all agree in."""

import pytest

from vllm_sgl.core import WIRE_FIELDS, Report
from vllm_sgl.serve.headers import header_name, report_headers

GUIDED = Report(
    "prune", "low_score", visual_tokens=1792, kept_tokens=627, tiles=7, encoded_tiles=5, score=0.61,
    confidence=0.83, consistency=0.39, guide_seconds=0.12,
)  # fmt: skip


def headers(*reports):
    return {name.decode(): value.decode("ascii") for name, value in report_headers(reports)}


def test_every_value_has_a_header():
    assert headers(GUIDED) == {
        "sgl-decision": "prune", "sgl-reason": "low_score", "sgl-visual": "1792", "sgl-kept": "627",
        "sgl-tiles": "7", "sgl-encoded-tiles": "5", "sgl-reused": "0", "sgl-late": "0", "sgl-score": "0.61",
        "sgl-confidence": "0.83", "sgl-consistency": "0.39", "sgl-guide-seconds": "0.12",
    }  # fmt: skip
    assert len({header_name(field) for field in WIRE_FIELDS}) == len(WIRE_FIELDS)


def test_what_is_not_known_has_none():
    assert headers(Report("bypass", "no_image")) == {
        "sgl-decision": "bypass", "sgl-reason": "no_image", "sgl-visual": "0", "sgl-kept": "0",
        "sgl-tiles": "0", "sgl-encoded-tiles": "0", "sgl-reused": "0", "sgl-late": "0",
    }  # fmt: skip
    assert headers(None) == headers() == {}


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        ("two words", "two%20words"),
        ("x\r\nset-cookie: y", "x%0D%0Aset-cookie:%20y"),
        ("größer", "gr%C3%B6%C3%9Fer"),
        ("50%", "50%25"),
        ("a/b (c)?", "a/b%20(c)?"),
    ],
)
def test_a_reason_of_somebody_elses_guide_breaks_no_header(reason, sent):
    assert headers(Report("bypass", reason))["sgl-reason"] == sent


def test_several_prompts():
    other = Report("prune", visual_tokens=1792, kept_tokens=3, tiles=7, encoded_tiles=5, confidence=0.83)
    assert headers(GUIDED, other, GUIDED) == {
        "sgl-prompts": "3", "sgl-decision": "prune", "sgl-visual": "1792", "sgl-tiles": "7",
        "sgl-encoded-tiles": "5", "sgl-reused": "0", "sgl-late": "0", "sgl-confidence": "0.83",
    }  # fmt: skip


def test_several_prompts_of_which_one_is_not_decided_yet():
    assert headers(GUIDED, None) == headers(None, GUIDED) == {"sgl-prompts": "2"}
