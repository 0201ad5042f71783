"""`python -m benchmarks.compare`: losses beyond the noise, and nothing else, turn it red."""

import json

import pytest

from benchmarks import compare

MACHINE = {"machine": "two cores", "gpu": None}


def result(values, error=0.02, better="higher", **changes):
    """values: by point; of one figure."""
    rows = [
        {"point": point, "figures": {"throughput": {"value": value, "error": error, "better": better}}}
        for point, value in values.items()
    ]
    return {**MACHINE, "benchmark": "serve", "preset": "cpu", "rows": rows, **changes}


@pytest.fixture
def run(tmp_path, capsys):
    def run(a, b):
        paths = []
        for name, content in (("a", a), ("b", b)):
            paths.append(tmp_path / f"{name}.json")
            paths[-1].write_text(json.dumps(content))
        code = compare.main(list(map(str, paths)))
        return code, capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("before", "after", "error", "better", "verdict"),
    [
        (1.5, 1.5, 0.02, "higher", "same"),
        # One comparison: z = 2.33, so sqrt(2) * 2 % allows for 6.6 %.
        (1.5, 1.42, 0.02, "higher", "same"),
        (1.5, 1.38, 0.02, "higher", "worse"),
        (1.5, 1.62, 0.02, "higher", "better"),
        (1.5, 1.62, 0.02, "lower", "worse"),
        # The floor of 3 %.
        (1.5, 1.47, 0.0, "higher", "same"),
        (1.5, 1.45, None, "higher", "worse"),
        (1.5, 1.0, 0.2, "higher", "same"),
    ],
)
def test_verdicts(run, before, after, error, better, verdict):
    a, b = (result({"R=0.35": value}, error, better) for value in (before, after))
    (change,) = compare.changes(a, b)
    assert compare.verdict(change, 1) == verdict
    code, said = run(a, b)
    assert code == (verdict == "worse")
    assert verdict in said.out.splitlines()[2]


def test_many_small_losses_are_seen_together(run):
    """No point loses more than its noise, all of them together do."""
    points = [f"point {number}" for number in range(20)]
    a, b = result(dict.fromkeys(points, 2.0)), result(dict.fromkeys(points, 1.9))
    *single, together = compare.changes(a, b)
    assert {compare.verdict(change, 21) for change in single} == {"same"}
    assert together.point == "all"
    assert compare.verdict(together, 21) == "worse"
    assert run(a, b)[0] == 1


def test_more_comparisons_allow_more():
    a, b = result({"x": 1.0}), result({"x": 0.92})
    (change,) = compare.changes(a, b)
    assert compare.verdict(change, 1) == "worse"
    assert compare.verdict(change, 100) == "same"


def test_points_that_only_one_has_are_left_out():
    a, b = result({"x": 1.0, "y": 1.0}), result({"x": 1.0, "z": 9.0})
    assert [change.point for change in compare.changes(a, b)] == ["x"]


def with_exits(values, share):
    one = result(values)
    one["rows"][-1]["exit_share"] = share
    return one


def test_other_exits_make_another_point(run):
    """Slower only because fewer requests ended early."""
    a, b = with_exits({"x": 1.0, "y": 3.0}, 0.8), with_exits({"x": 1.0, "y": 1.5}, 0.4)
    assert [change.point for change in compare.changes(a, b)] == ["x"]
    code, said = run(a, b)
    assert code == 0
    assert "y: not compared, 80% of requests exited in A, 40% in B" in said.err


def test_points_of_the_same_exits_are_compared(run):
    code, said = run(with_exits({"x": 3.0}, 0.8), with_exits({"x": 1.5}, 0.79))
    assert code == 1
    assert not said.err


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (result({"x": 1.0}), result({"x": 1.0}, preset="gpu"), "preset is cpu in A and gpu in B"),
        (result({"x": 1.0}), result({"x": 1.0}, benchmark="memory"), "benchmark is serve in A"),
        (result({"x": 1.0}, layouts={"plain": "like SGL"}), result({"x": 1.0}), "to another plain vLLM"),
        (result({"x": 1.0}), result({"y": 1.0}), "no figure is in both"),
        (result({"x": 1.0}), {"rows": []}, "benchmark is serve in A and None in B"),
    ],
)
def test_what_cannot_be_compared(run, a, b, words):
    code, said = run(a, b)
    assert code == 2
    assert words in said.err
    assert not said.out


def test_no_such_file(tmp_path, capsys):
    assert compare.main([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert "a.json" in capsys.readouterr().err


def test_another_machine_is_named(run):
    code, said = run(result({"x": 1.0}), result({"x": 1.0}, machine="four cores"))
    assert code == 0
    assert "different machines" in said.err
