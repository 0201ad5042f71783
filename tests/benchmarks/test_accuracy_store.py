"""Answers survive a run that was cut off, and never mix with those of another run."""

import pytest

from benchmarks.accuracy.settings import METHODS, Setting, plan
from benchmarks.accuracy.store import Store
from vllm_sgl.evaluate.errors import UsageError

RUN = {"large": "L", "data": "abc", "methods": ("tuple", "becomes a list")}
SGP = Setting("sgp", 0.35, "original")


def record(question, setting=SGP, **more):
    return {"question": question, **setting.as_dict(), "answer": "42", **more}


def test_answers_are_there_again(tmp_path):
    path = tmp_path / "new" / "answers.jsonl"
    store = Store(path, RUN)
    store.add([record("a"), record("b", Setting("full"))])
    again = Store(path, RUN)
    assert ("a", SGP) in again
    assert ("a", Setting("full")) not in again
    assert again.settings == [SGP, Setting("full")]
    assert again.answers(SGP) == {"a": record("a")}


def test_a_line_cut_off_in_the_middle_is_asked_again(tmp_path):
    path = tmp_path / "answers.jsonl"
    Store(path, RUN).add([record("a"), record("b")])
    path.write_text(path.read_text()[:-9])
    store = Store(path, RUN)
    assert ("a", SGP) in store
    assert ("b", SGP) not in store
    store.add([record("b", more=1)])
    assert Store(path, RUN).answers(SGP)["b"]["more"] == 1


def test_another_run_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "answers.jsonl"
    Store(path, RUN)
    with pytest.raises(UsageError, match=r"another run: data was 'abc', is 'def'. Choose another --out"):
        Store(path, {**RUN, "data": "def"})


def test_plan_asks_each_setting_once():
    settings = plan(METHODS, (1, 0.35), ("original", "packed"), (None, "prompt"), (0.5,))
    assert len(settings) == len(set(settings))
    assert settings.count(Setting("full")) == settings.count(Setting("small")) == 1
    assert Setting("sgp", 0.35, "packed", "prompt") in settings
    assert Setting("sgp", 1, "original", exit_threshold=0.5) in settings
    assert Setting("random", 0.35, "packed") in settings
    assert not any(s.retention == 1 for s in settings if s.exit_threshold is None)
    labels = [setting.label for setting in settings]
    assert len(labels) == len(set(labels))
