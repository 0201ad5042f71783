"""How tests are shared out to two workers, and what a run says of itself at its end."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import started

#: How many of the slowest fixtures and tests are named.
SLOWEST = 10
#: Folders whose groups take longest come first, so that no worker is left with a long one at the end.
LONG = (
    "serve",
    "matrix",
    "evidence",
    "translated",
    "crossed",
    "offline",
    "guide",
    "prune",
    "explain",
    "unit",
)


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("gate")
    group.addoption("--all", action="store_true", help="also the tests that the gate leaves out: `nightly`")
    group.addoption("--summary", type=Path, metavar="FILE", help="what was slowest and started, as JSON")


class Gate:
    """The hooks, in the process that collects reports and in those that run tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._in_worker = hasattr(config, "workerinput")
        self._took: list[tuple[float, str]] = []
        self._started: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if not self._config.getoption("all"):
            left_out = [item for item in items if item.get_closest_marker("nightly")]
            if left_out:
                self._config.hook.pytest_deselected(items=left_out)
                items[:] = [item for item in items if not item.get_closest_marker("nightly")]
        if self._in_worker:
            items.sort(key=_place)
            for item in items:
                if item.get_closest_marker("xdist_group") is None:
                    item.add_marker(pytest.mark.xdist_group(group_of(item)))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        start = time.monotonic()
        try:
            return (yield)
        finally:
            if fixturedef.scope != "function" or time.monotonic() - start > 1:
                where = f"{fixturedef.baseid or 'pytest'}: fixture {fixturedef.argname}"
                if hasattr(request, "param"):
                    where += f"[{request.param_index}]"
                self._took.append((time.monotonic() - start, where))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and not self._in_worker:
            self._took.append((report.duration, report.nodeid))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if self._in_worker:
            self._config.workeroutput["gate"] = [self._took, dict(started.COUNTS)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        took, counts = getattr(node, "workeroutput", {}).get("gate", ([], {}))
        self._took += [(seconds, what) for seconds, what in took]
        self._started.update(counts)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self._started.update(started.COUNTS)
        slowest = sorted(self._took, reverse=True)[:SLOWEST]
        if path := self._config.getoption("summary"):
            path.write_text(json.dumps({"slowest": slowest, "started": self._started}))
        terminalreporter.section(f"slowest {SLOWEST} fixtures and tests")
        for seconds, what in slowest:
            terminalreporter.write_line(f"{seconds:7.1f} s  {what}")
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(self._started.items()))
        terminalreporter.write_line(f"started: {counts or 'nothing'}")


def group_of(item: Any) -> str:
    """Tests of a group run in one worker, one after the other, and so share what their fixtures start.

    A group is a file; of a file whose fixtures are parametrized, the tests with the same parameters; or all
    tests that use one server or pair of engines that is started once for them.
    """
    fixtures = item._fixtureinfo.name2fixturedefs if hasattr(item, "_fixtureinfo") else {}
    for name in ("server", "engines", "llm"):
        if name in item.fixturenames and name in fixtures and fixtures[name][-1].scope == "session":
            return f"{fixtures[name][-1].baseid}: {name}"
    group = item.nodeid.partition("::")[0]
    indices = item.callspec.indices if hasattr(item, "callspec") else {}
    for name in sorted(indices):
        if name in fixtures and fixtures[name][-1].scope != "function":
            group += f" {name}={indices[name]}"
    return group


def _place(item: pytest.Item) -> int:
    """The sort is stable: within a folder, everything stays as it is."""
    folder = item.nodeid.split("/")[1]
    return LONG.index(folder) if folder in LONG else len(LONG)
