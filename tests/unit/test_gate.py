"""What the gate does with tests, and when it fails for what it started or took."""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.gate import _left_out, group_of
from tools import gate

ROOT = Path(__file__).parents[2]


def item(nodeid, marks=(), fixtures=None, id=None, **indices):
    definitions = {
        name: [SimpleNamespace(scope=scope, baseid="tests/folder")]
        for name, scope in (fixtures or {}).items()
    }
    made = SimpleNamespace(
        nodeid=nodeid,
        fixturenames=list(definitions),
        _fixtureinfo=SimpleNamespace(name2fixturedefs=definitions),
        get_closest_marker={mark.name: mark for mark in marks}.get,
    )
    if indices or id:
        made.callspec = SimpleNamespace(indices=indices, id=id)
    return made


def test_groups():
    file = "tests/folder/test_x.py"
    assert group_of(item(f"{file}::test_a")) == group_of(item(f"{file}::test_b[1]", number=1)) == file
    cases = [item(f"{file}::test_a", fixtures={"case": "module"}, case=case) for case in (0, 0, 1)]
    one, two, three = map(group_of, cases)
    assert one == two != three
    files = (f"tests/folder/test_{name}.py::test" for name in "xy")
    one, two = (group_of(item(name, fixtures={"server": "session"})) for name in files)
    assert one == two == "tests/folder: server"


def test_what_is_left_out():
    slow, one = pytest.mark.nightly("x"), pytest.mark.nightly("x", but="large")
    assert not _left_out(item("a", id="large"))
    assert [_left_out(item("a", [slow.mark], id=id)) for id in ("large", None)] == [True, True]
    assert [_left_out(item("a", [one.mark], id=id)) for id in ("large", "small", None)] == [False, True, True]


def test_what_is_left_out_is_listed():
    """Each says what it guards, and CONTRIBUTING.md names its file."""
    listed = (ROOT / "CONTRIBUTING.md").read_text()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "nightly" and path != Path(__file__):
                assert f"({path.relative_to(ROOT)})" in listed, path
    assert "nightly" in (ROOT / "tests/unit/test_reference.py").read_text()


def summary(folder, **started):
    kinds = {name.replace("_", " "): number for name, number in started.items()}
    found = {"slowest": [(3, 1, "tests/a"), (2, 1, "tests/b")], "started": kinds}
    (folder / str(len(list(folder.iterdir())))).write_text(json.dumps(found))


def test_too_many_starts_fail(tmp_path, capsys):
    most = gate.MOST["servers"]
    summary(tmp_path, servers=most - 1)
    assert gate._summary(tmp_path) == []
    summary(tmp_path, servers=1)
    assert gate._summary(tmp_path) == []
    summary(tmp_path, servers=1, others=1)
    too_many, unknown = gate._summary(tmp_path)
    assert too_many.startswith(f"{most + 1} servers, expected at most {most}")
    assert unknown.startswith("1 others, expected at most 0")
    assert "3.0 s,   1.0 s of CPU  tests/a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("own", "idle", "share"), [(150, 50, 1), (100, 80, 0.9), (100, 0, 0.5), (201, 0, 1)]
)  # fmt: skip
def test_share_of_the_machine(own, idle, share):
    assert gate.Times(200, idle, own).share == share


def test_a_slow_run_fails_on_a_quiet_machine_only():
    quiet, busy = gate.Times(2 * 3000, 100, 5800), gate.Times(2 * 3000, 100, 4000)
    assert gate.too_long(3000, quiet, cores=2) == ["took 3000 s on a quiet machine, expected at most 2400 s"]
    for seconds, used, cores in ((2300, quiet, 2), (3000, busy, 2), (3000, quiet, 1)):
        assert gate.too_long(seconds, used, cores) == []


def test_time_is_measured():
    before = gate.Times.now()
    sum(range(3_000_000))
    used = gate.Times.now() - before
    assert 0 < used.own < 60
    assert used.total >= 0
