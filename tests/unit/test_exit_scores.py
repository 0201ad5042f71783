"""Exit scores: their formulas, their names, and where a second pass runs."""

import math
from typing import get_args

import pytest

from tests.unit.test_pipeline import FakeGuide, answer, walk
from vllm_sgl.allowed import ALLOWED
from vllm_sgl.config import ExitScore, SGLConfig
from vllm_sgl.core import Answer, Reason
from vllm_sgl.decide.scores.registry import SCORES

LOGPROBS = tuple(map(math.log, (0.9, 0.5, 0.8)))
EXPECTED = {
    "paper": (0.36 ** (1 / 3) + 0.3) / 2,
    "product": 0.36,
    "lowest": 0.5,
    "geometric_mean": 0.36 ** (1 / 3),
    "product_consistency": 0.36 * 0.3,
}


def test_settings_know_every_score_by_name():
    assert list(SCORES) == list(get_args(ExitScore)) == list(EXPECTED)
    assert all(f"'{name}'" in ALLOWED["exit_score"] for name in SCORES)
    with pytest.raises(ValueError, match=r"sgl_exit_score: expected 'paper', .*, received 'best'"):
        SGLConfig.parse({"small": "s", "exit_score": "best"})


@pytest.mark.parametrize("name", SCORES)
def test_formulas(name):
    score = SCORES[name]
    assert score.of(LOGPROBS, 0.3) == pytest.approx(EXPECTED[name])
    assert score.of((), 0.0) == 0
    assert (score.of(LOGPROBS, 0.4) > score.of(LOGPROBS, 0.3)) is score.needs_consistency
    assert score.of((0.0, 0.0), 1.0) == 1


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("exits", [True, False])
def test_the_second_pass_runs_only_where_the_score_needs_it(name, exits):
    """The threshold lies just above or below what the score gives."""
    given = Answer("yes", (1, 2, 3), LOGPROBS, True, "stop")
    guide = FakeGuide(given, agreement=0.3)
    threshold = EXPECTED[name] + (-1e-6 if exits else 1e-6)
    outcome = walk(guide, exit_threshold=threshold, exit_score=name)
    report = outcome.report
    second = [call for call in guide.calls if call[0] == "confirm"]
    assert len(second) == SCORES[name].needs_consistency
    assert report.consistency == (0.3 if second else None)
    assert report.score == pytest.approx(EXPECTED[name])
    assert (report.decision, report.reason) == (("exit", None) if exits else ("prune", Reason.LOW_SCORE))
    assert outcome.answer == (given if exits else None)


def test_no_second_pass_where_the_score_cannot_reach_the_threshold():
    guide = FakeGuide(answer(0.5))  # two tokens: their product is 0.25, their mean 0.5
    asked = {"exit_threshold": 0.3, "exit_score": "product_consistency"}
    assert walk(guide, **asked).report.reason == Reason.LOW_CONFIDENCE
    assert [name for name, *_ in guide.calls] == ["look"]
    assert walk(FakeGuide(answer(0.5), 0.5), exit_threshold=0.3).report.decision == "exit"  # the paper's


@pytest.mark.parametrize("name", SCORES)
def test_an_unfinished_answer_has_no_score(name):
    outcome = walk(FakeGuide(answer(finished=False)), exit_threshold=0.0, exit_score=name)
    assert (outcome.report.reason, outcome.report.score) == (Reason.UNFINISHED, None)


def test_the_server_s_score_and_a_shadow():
    """A shadow reports the score and answers as if SGL were off."""
    server = {"shadow": True, "exit_score": "product", "exit_threshold": 0.25}
    outcome = walk(FakeGuide(answer(0.6)), server=server)
    assert (outcome.report.decision, outcome.answer) == ("exit", None)
    assert outcome.report.score == pytest.approx(0.36)
