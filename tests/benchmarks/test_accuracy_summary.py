"""Figures and pictures from stored answers that are made up."""

import json

import pytest

from benchmarks.accuracy import pictures, tables
from benchmarks.accuracy.cost import ModelCost, PairCost
from benchmarks.accuracy.settings import Setting
from benchmarks.accuracy.store import Store
from benchmarks.accuracy.summary import summarise
from vllm_sgl.evaluate.questions import Question

COST = PairCost(ModelCost(100, 10, 0, 0, 4), ModelCost(10, 1, 0, 0, 4))
QUESTIONS = [Question(str(n), (), "?", ("yes",), kind) for n, kind in enumerate(("a", "a", "b", None))]
ANSWERS = {
    Setting("full"): "yyyn",
    Setting("small"): "yynn",
    Setting("sgp", 0.5, "original"): "yyyn",
    Setting("sgp", 0.5, "original", "prompt"): "yyny",
    Setting("sgp", 0.5, "packed"): "nnnn",
    Setting("random", 0.5, "original"): "yn",
    Setting("sgp", 0.5, "original", None, 0.7): "yyyn",
}
#: Tiles of two that are encoded for each question; who is not here does not say it, as before version 0.2.0.
ENCODED = {
    Setting("full"): (2, 2, 2, 2),
    Setting("sgp", 0.5, "original", "prompt"): (1, 2, 1, 2),
    Setting("sgp", 0.5, "packed"): (1, 1, 1, 1),
}


@pytest.fixture
def summary(tmp_path):
    store = Store(tmp_path / "answers.jsonl", {})
    for setting, answers in ANSWERS.items():
        kept = {"full": 8, "small": 0}.get(setting.method, 4)
        for id, answer in enumerate(answers):
            scores = {"score": (0.9, 0.6, 0.7, 0.1)[id], "confidence": 0.9}
            record = {
                "question": str(id), **setting.as_dict(), "answer": {"y": "yes", "n": "no"}[answer],
                "prompt_tokens": 12, "answer_tokens": 1, "visual_tokens": 8, "kept_tokens": kept,
                "share": kept / 8, "exited": setting.exit_threshold is not None and id in (0, 2),
                **(scores if setting.method == "small" else {"score": None, "confidence": None}),
            }  # fmt: skip
            if setting in ENCODED:
                record |= {"tiles": 2, "encoded_tiles": ENCODED[setting][id]}
            store.add([record])
    return summarise(store, QUESTIONS, "exact", COST)


def test_rows(summary):
    rows = {row.setting: row for row in summary.rows}
    full, sgp = rows[Setting("full")], rows[Setting("sgp", 0.5, "original")]
    assert full.accuracy["exact"].value == 0.75
    assert (full.small_wrong["exact"].value, full.small_wrong["exact"].n) == (0.5, 2)
    assert {kind: estimate.n for kind, estimate in full.kinds.items()} == {"a": 2, "b": 1}
    # The large model: two tiles and 12 tokens, or 8; the small one: a tenth of each part.
    assert (full.cost, rows[Setting("small")].cost) == (1, pytest.approx(0.1))
    assert sgp.cost == pytest.approx((2 * 100 + 8 * 10 + 32) / (2 * 100 + 12 * 10))
    assert rows[Setting("random", 0.5, "original")].n == 2


def test_tiles_of_which_nothing_is_kept_cost_nothing(summary):
    rows = {row.setting: row for row in summary.rows}
    half, some, told_nothing = (
        rows[Setting("sgp", 0.5, *more)] for more in (("packed",), ("original", "prompt"), ("original",))
    )
    assert (half.encoded, some.encoded, told_nothing.encoded) == (0.5, 0.75, None)
    assert half.cost == pytest.approx((100 + 8 * 10 + 32) / (2 * 100 + 12 * 10))
    assert some.cost == pytest.approx((1.5 * 100 + 8 * 10 + 32) / (2 * 100 + 12 * 10))
    assert told_nothing.cost == pytest.approx((2 * 100 + 8 * 10 + 32) / (2 * 100 + 12 * 10))


def test_exits(summary):
    assert summary.exit_score.value == 0.5 + 0.25  # right 0.9 and 0.6 over wrong 0.7 and 0.1
    assert list(summary.curves) == [1.0, 0.5]
    (check,) = summary.checks
    assert (check.n, check.share, check.expected_share) == (4, 0.5, 0.5)
    assert (check.accuracy, check.expected_accuracy) == (0.75, 0.5)


def test_everything_is_written(summary, tmp_path, capsys):
    names = [path.name for path in pictures.draw(summary, tmp_path, "made up")]
    assert names == ["accuracy.png", "variants.png", "exits.png"]
    tables.show(summary)
    printed = capsys.readouterr().out
    assert "| sgp 0.5, rows prompt " in printed
    assert "75.0 [30.1, 95.4]" in printed
    tables.write(tmp_path / "accuracy.json", {"commit": "abc"}, summary)
    written = json.loads((tmp_path / "accuracy.json").read_text())
    assert written["commit"] == "abc"
    assert len(written["rows"]) == len(ANSWERS)


def test_no_small_model_no_exits(tmp_path):
    store = Store(tmp_path / "answers.jsonl", {})
    record = {"question": "0", "answer": "yes", "kept_tokens": 8, "visual_tokens": 8, "share": 1.0}
    store.add([{**Setting("full").as_dict(), **record, "prompt_tokens": 12, "answer_tokens": 1}])
    found = summarise(store, QUESTIONS, "exact", COST)
    assert (found.exit_score, found.curves, found.checks) == (None, {}, [])
    assert found.rows[0].small_wrong["exact"].n == 0
    assert pictures.draw(found, tmp_path, "made up") == []
