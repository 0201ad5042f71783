"""How tests are shared out to two workers, and what a run says of itself at its end."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import started

#: How many of the slowest fixtures and tests are named.
SLOWEST = 10
#: Seconds from which a fixture or test may be among them.
WORTH_SAYING = 0.5
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
        #: (seconds, of them CPU seconds of this process, fixture or test)
        self._took: list[tuple[float, float, str]] = []
        self._started: Counter[str] = Counter()
        #: CPU seconds of the tests' own process, by file; what they start is not in it.
        self._files: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        left_out = [] if self._config.getoption("all") else [item for item in items if _left_out(item)]
        if left_out:
            self._config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not _left_out(item)]
        if self._in_worker:
            items.sort(key=_place)
            for item in items:
                if item.get_closest_marker("xdist_group") is None:
                    item.add_marker(pytest.mark.xdist_group(group_of(item)))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Check that pytest-xdist took the groups over: without them, both workers start everything."""
        if self._in_worker and self._config.getvalue("loadgroup"):
            without = [item.nodeid for item in session.items if "@" not in item.nodeid]
            if without:
                raise pytest.UsageError(
                    f"expected '@' and its group behind the name of each test, received {without[0]}: "
                    "install the pytest that pyproject.toml names"
                )

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        where = f"{fixturedef.baseid or 'pytest'}: fixture {fixturedef.argname}"
        if hasattr(request, "param"):
            where += f"[{request.param_index}]"
        with self._timed(where):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        with self._timed(item.nodeid.removesuffix(f"@{group_of(item)}")):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        start = time.process_time()
        try:
            return (yield)
        finally:
            self._files[item.nodeid.partition("::")[0]] += time.process_time() - start

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        start, used = time.monotonic(), time.process_time()
        try:
            yield
        finally:
            if (seconds := time.monotonic() - start) > WORTH_SAYING:
                self._took.append((seconds, time.process_time() - used, what))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if self._in_worker:
            self._config.workeroutput["gate"] = [self._took, dict(started.COUNTS), dict(self._files)]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        took, counts, files = getattr(node, "workeroutput", {}).get("gate", ([], {}, {}))
        self._took += map(tuple, took)
        self._started.update(counts)
        self._files.update(files)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self._started.update(started.COUNTS)
        slowest = sorted(self._took, reverse=True)[:SLOWEST]
        if path := self._config.getoption("summary"):
            found = {"slowest": slowest, "started": self._started, "files": self._files}
            path.write_text(json.dumps(found, indent=1))
        terminalreporter.section(f"slowest {SLOWEST} fixtures and tests")
        for seconds, used, what in slowest:
            terminalreporter.write_line(f"{seconds:7.1f} s, {used:5.1f} s of CPU  {what}")
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


def _left_out(item: Any) -> bool:
    """Whether the gate does without this test."""
    mark = item.get_closest_marker("nightly")
    return mark is not None and (
        "but" not in mark.kwargs or not hasattr(item, "callspec") or item.callspec.id != mark.kwargs["but"]
    )


def _place(item: pytest.Item) -> int:
    """The sort is stable: within a folder, everything stays as it is."""
    folder = item.nodeid.split("/")[1]
    return LONG.index(folder) if folder in LONG else len(LONG)
