"""Everything that is checked before a change is merged: style, types, documentation and tests.

Two workers run the tests; those that need the machine alone follow. The slow checks run beside the tests.
At the end it prints what took longest, how much was started, and the time. It fails where starts or time have
grown; a machine that was busy with something else does not fail it.

    python -m tools.gate [--all] [--since SECONDS]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

PYTHON = sys.executable
BIN = Path(PYTHON).parent

#: A few seconds together.
QUICK = (
    (str(BIN / "ruff"), "check", "."),
    (str(BIN / "ruff"), "format", "--check", "."),
    (PYTHON, "tools/check_imports.py"),
    (str(BIN / "lint-imports"),),
    (PYTHON, "tools/check_links.py"),
)
#: Most of a minute each.
SLOW = (
    (str(BIN / "mypy"),),
    (PYTHON, "-m", "tools.check_docs"),
)
WORKERS = 2
#: What each kind of start may come to; see tests/support/started.py. More needs a reason and a number here.
MOST = {
    "servers": 6,
    "servers, forked": 60,
    "commands": 12,
    "commands, forked": 60,
    "engines of LLMs": 80,
    "engines in a test process": 320,
}
#: Seconds that all of it may take on two cores.
LONGEST = 40 * 60
#: Of two cores' time, what others may not have taken for the time to count.
OURS = 0.9
SLOWEST = 10


@dataclass
class Times:
    """Seconds of all cores together, since the machine and since this process started.

    What a killed process left behind is not in ``own``. A subreaper would adopt it, and make zombies of what
    tests take for processes that live on.
    """

    total: float
    idle: float
    own: float

    @classmethod
    def now(cls) -> "Times":
        ticks = os.sysconf("SC_CLK_TCK")
        first, *_ = Path("/proc/stat").read_text().splitlines()
        # user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in the first two
        values = [int(value) / ticks for value in first.split()[1:9]]
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return cls(sum(values), values[3] + values[4], own)

    def __sub__(self, other: "Times") -> "Times":
        return Times(self.total - other.total, self.idle - other.idle, self.own - other.own)

    @property
    def share(self) -> float:
        """Of the cores' time, what this process and its children had or could have had."""
        return min(1.0, (self.own + self.idle) / self.total) if self.total else 1.0


def _run(command: Sequence[str], capture: bool = False) -> subprocess.CompletedProcess[str]:
    output = subprocess.PIPE if capture else None
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT if capture else None,
        text=True, check=False,
    )  # fmt: skip


def _failed(commands: Sequence[Sequence[str]]) -> list[str]:
    """Run them; those that failed, by name. What they say appears when each is over."""
    failed = []
    for command in commands:
        name = " ".join(Path(word).name if word in (PYTHON, command[0]) else word for word in command)
        start = time.monotonic()
        done = _run(command, capture=True)
        print(f"$ {name}  # {time.monotonic() - start:.0f} s\n{done.stdout.rstrip()}", flush=True)
        if done.returncode:
            failed.append(name)
    return failed


def _tests(everything: bool, folder: Path) -> list[str]:
    """Both runs of pytest; those that failed or had no tests, by name."""
    options = ["--all"] if everything else []
    runs = {
        "tests": ["-m", "not alone", "-n", str(WORKERS), "--dist", "loadgroup", "--no-loadscope-reorder"],
        "tests that need the machine alone": ["-m", "alone", "tests/hard"],
    }
    failed = []
    for number, (name, own) in enumerate(runs.items()):
        summary = f"--summary={folder / str(number)}"
        if _run([PYTHON, "-m", "pytest", *own, *options, summary]).returncode:
            failed.append(name)
    return failed


def _summary(folder: Path) -> list[str]:
    """Print what was slowest and started; what was started too often."""
    slowest: list[tuple[float, float, str]] = []
    started: Counter[str] = Counter()
    for file in folder.iterdir():
        found = json.loads(file.read_text())
        slowest += found["slowest"]
        started.update(found["started"])
    print(f"\nThe slowest {SLOWEST} fixtures and tests:")
    for seconds, used, what in sorted(slowest, reverse=True)[:SLOWEST]:
        print(f"{seconds:7.1f} s, {used:5.1f} s of CPU  {what}")
    print("Started:")
    for kind, most in MOST.items():
        print(f"{started[kind]:7}  {kind} (at most {most})")
    return [
        f"{number} {kind}, expected at most {MOST.get(kind, 0)}: let tests share what runs already, or raise "
        "the number in tools/gate.py and say why"
        for kind, number in started.items()
        if number > MOST.get(kind, 0)
    ]


def too_long(seconds: float, used: Times, cores: int) -> list[str]:
    """What to say of a run that took so long, where the machine had nothing else to do."""
    if seconds <= LONGEST or used.share < OURS or cores < WORKERS:
        return []
    return [f"took {seconds:.0f} s on a quiet machine, expected at most {LONGEST} s"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="also the tests that the gate leaves out")
    parser.add_argument("--since", type=float, default=time.time(), metavar="SECONDS",
                        help="when it all began, as seconds since 1970")  # fmt: skip
    arguments = parser.parse_args()
    before = Times.now()
    if failed := _failed(QUICK):
        print(f"gate: failed: {', '.join(failed)}")
        return 1
    with TemporaryDirectory() as name, ThreadPoolExecutor(1) as beside:
        folder = Path(name)
        slow: Future[list[str]] = beside.submit(_failed, SLOW)
        failed = _tests(arguments.all, folder) + slow.result()
        grown = _summary(folder)
    used = Times.now() - before
    seconds = time.time() - arguments.since
    print(
        f"gate: {seconds:.0f} s; {used.own:.0f} s of {used.total:.0f} s of {os.cpu_count()} cores used, "
        f"{used.idle:.0f} s idle, {1 - used.share:.0%} taken by others"
    )
    if not arguments.all:
        failed += grown + too_long(seconds, used, os.cpu_count() or 1)
    for what in failed:
        print(f"gate: failed: {what}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
