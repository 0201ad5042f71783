"""Twenty minutes of everything at once, with memory sampled: ``make soak``.

    python -m tests.hard.soak [--minutes 20] [--clients 12] [--out FILE]

Clients ask questions whose answers are known, show images that nobody has seen, send bad requests, and leave
before they are answered. Twenty times they rest, and one line of memory is printed: what each process had
after the load, and what it still holds when its allocator has given back all that is free. Prints at the end
what it found; exits with status 1 where an answer was wrong, a request got a 5xx, the log has an error, a
request was left in an engine, or what is held kept growing.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import report
from tests.hard.clients import body, connect, post
from tests.hard.engines import large_engine, small_engine
from tests.hard.questions import Reference, questions
from tests.support.server import Server
from tools.tiny_internvl import build_pair

#: Times that the clients rest, the end included.
LAPS = 20
#: Seconds in which an idle process gives back what is free.
SETTLING = 2.0
#: Caches fill up in the first half; from then on what a process holds may grow by so much.
GROWTH = 0.03
#: How often each kind of request is sent, by weight.
KINDS = {"known": 50, "new image": 30, "bad": 7, "leaves": 13}
#: Its ``sitecustomize.py`` lets a process give back what is free.
_TRIMMING = Path(__file__).with_name("trimming")
#: Small caches, so that they are full early: what grows then is a leak.
#: Answers are compared with those of each question alone.
FLAGS = (
    "--sgl-break-even=off", "--sgl-follow-ups=off", "--sgl-feature-cache=8MiB",
    "--mm-processor-cache-gb=0.02",
)  # fmt: skip
#: The same for oneDNN, which plain vLLM has on a CPU too: it keeps a primitive for every height that a
#: matrix had, 1,024 of them with some 0.3 MiB each.
ENVIRONMENT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}


class Soak:
    def __init__(self, server: Server, clients: int) -> None:
        self._server = server
        self._reference = Reference(server, questions(48, seed=4))
        self._lock = threading.Lock()
        self._chance = [random.Random(number) for number in range(clients)]
        self.found: Counter[str] = Counter()
        self.wrong: list[str] = []

    def lap(self, seconds: float) -> None:
        """All clients work for so long; nothing is under way afterwards."""
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._client, args=(rng, end)) for rng in self._chance]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, rng: random.Random, end: float) -> None:
        with connect(self._server) as http:
            while time.monotonic() < end:
                kind = rng.choices(list(KINDS), KINDS.values())[0]
                try:
                    said = self._ask(http, kind, rng)
                except AssertionError as error:
                    said = "wrong"
                    self.wrong.append(str(error))
                with self._lock:
                    self.found[f"{kind}: {said}"] += 1

    def _ask(self, http: httpx.Client, kind: str, rng: random.Random) -> str:
        if kind == "known":
            question = rng.choice(self._reference.questions)
            return self._reference.check(question, post(http, question.body(self._server)))
        made = body(self._server, "Who?", rng.randrange(10**9), max_tokens=20)
        if kind == "new image":
            result = post(http, made)
            assert result.status == 200, result
            return str(result.status)
        if kind == "bad":
            xargs = rng.choice(({"sgl_retention": 7}, {"sgl_no_such": 1}, {"sgl_guide_tokens": 0}))
            result = post(http, {**made, "vllm_xargs": xargs})
            assert result.status == 400, result
            return str(result.status)
        with connect(self._server, timeout=rng.uniform(0.01, 0.3)) as hasty:
            result = post(hasty, made)
        assert result.status in (200, None), result
        return "left" if result.status is None else str(result.status)


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description="Use a server hard, and watch its memory.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--out", type=Path, help="write what was found as JSON")
    options = parser.parse_args()
    # Uvicorn closes connections that were idle for 5 s, and may do so as a request comes in.
    os.environ["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] = str(round(options.minutes * 60) + 600)
    environment = report.environment()
    report.print_environment(environment)
    with tempfile.TemporaryDirectory() as scratch:
        small, large = build_pair(Path(scratch))
        path = os.pathsep.join((str(_TRIMMING), os.environ.get("PYTHONPATH", "")))
        flags, variables = [f"--sgl-small={small}", *FLAGS], {**ENVIRONMENT, "PYTHONPATH": path}
        with Server(large, Path(scratch) / "log", flags, environment=variables) as server:
            problems, found = _soak(server, options.minutes * 60, options.clients)
    print("\n".join(problems) or "soak: nothing to report")
    if options.out:
        options.out.write_text(json.dumps({**environment, **found, "problems": problems}, indent=1) + "\n")
    return 1 if problems else 0


def _soak(server: Server, seconds: float, clients: int) -> tuple[list[str], dict[str, Any]]:
    processes = {"server": server.process, "small": small_engine(server), "large": large_engine(server)}
    soak, rows = Soak(server, clients), []
    began = time.monotonic()
    for _ in range(LAPS):
        soak.lap(seconds / LAPS)
        rows.append(_row(server, processes, (time.monotonic() - began) / 60))
        print("  ".join(f"{name} {value:.1f}" for name, value in rows[-1].items()), flush=True)
    print(f"{sum(soak.found.values())} requests: {dict(sorted(soak.found.items()))}")
    problems = [f"wrong: {text[:500]}" for text in soak.wrong[:10]]
    errors = [line for line in server.log_text().splitlines() if "ERROR" in line or "Traceback" in line]
    problems += [f"log: {line[:300]}" for line in errors[:10]]
    problems += [
        f"minute {row['minute']:.0f}: {row['left']:.0f} requests left" for row in rows if row["left"]
    ]
    first, last = rows[LAPS // 2 - 1], rows[-1]
    for name in (*processes, "files", "threads"):
        if last[name] > first[name] * (1 + GROWTH) + 1:
            problems.append(f"{name} grew from {first[name]:.0f} to {last[name]:.0f} in the second half")
    return problems, {"laps": rows, "requests": dict(soak.found)}


def _row(server: Server, processes: dict[str, psutil.Process], minute: float) -> dict[str, float]:
    """At rest: MiB of each process as the load left it, and of what it holds; requests still in an engine."""
    loaded = {f"{name} loaded": _mebibytes(process) for name, process in processes.items()}
    for process in processes.values():
        process.send_signal(signal.SIGUSR1)
    time.sleep(SETTLING)
    held = {name: _mebibytes(process) for name, process in processes.items()}
    metrics = server.metrics()
    left = sum(metrics.total(f"vllm:num_requests_{state}") for state in ("running", "waiting"))
    return {"minute": minute, **loaded, **held, **_open(server.process), "left": left}


def _mebibytes(process: psutil.Process) -> float:
    """Resident memory."""
    return float(process.memory_info().rss) / 2**20


def _open(process: psutil.Process) -> dict[str, int]:
    return {"files": process.num_fds(), "threads": process.num_threads()}


if __name__ == "__main__":
    sys.exit(main())
