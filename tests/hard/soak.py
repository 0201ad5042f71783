"""Twenty minutes of everything at once, with memory sampled: ``make soak``.

    python -m tests.hard.soak [--minutes 20] [--clients 12] [--out FILE]

Clients ask questions whose answers are known, show images that nobody has seen, send bad requests, and leave
before they are answered. Prints one line of memory per half minute, and at the end what it found; exits with
status 1 where an answer was wrong, a request got a 5xx, the log has an error, or memory kept growing.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.hard.clients import body, connect, post
from tests.hard.engines import large_engine, small_engine
from tests.hard.questions import Reference, questions
from tests.support.server import Server
from tools.tiny_internvl import build_pair

SAMPLE_SECONDS = 30
#: Caches fill up in the first half; from then on a process may grow by so much.
GROWTH = 0.03
#: How often each kind of request is sent, by weight.
KINDS = {"known": 50, "new image": 30, "bad": 7, "leaves": 13}
#: Small caches, so that they are full early: what grows then is a leak.
FLAGS = ("--sgl-break-even=off", "--sgl-feature-cache=8MiB", "--mm-processor-cache-gb=0.02")


class Soak:
    def __init__(self, server: Server, clients: int, seconds: float) -> None:
        self._server = server
        self._reference = Reference(server, questions(48, seed=4))
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self.found: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(clients)]

    def run(self, sample: Any) -> None:
        """Work until the time is over; ``sample()`` every half minute."""
        for thread in self._threads:
            thread.start()
        while time.monotonic() < self._end:
            sample()
            time.sleep(min(SAMPLE_SECONDS, max(0.0, self._end - time.monotonic())))
        for thread in self._threads:
            thread.join()
        sample()

    def _client(self, number: int) -> None:
        rng = random.Random(number)
        with connect(self._server) as http:
            while time.monotonic() < self._end:
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
    with tempfile.TemporaryDirectory() as scratch:
        small, large = build_pair(Path(scratch))
        with Server(large, Path(scratch) / "log", [f"--sgl-small={small}", *FLAGS]) as server:
            problems, found = _soak(server, options.minutes * 60, options.clients)
    print("\n".join(problems) or "soak: nothing to report")
    if options.out:
        options.out.write_text(json.dumps({**found, "problems": problems}, indent=1) + "\n")
    return 1 if problems else 0


def _soak(server: Server, seconds: float, clients: int) -> tuple[list[str], dict[str, Any]]:
    processes = {"server": server.process, "small": small_engine(server), "large": large_engine(server)}
    samples: list[dict[str, float]] = []
    began = time.monotonic()

    def sample() -> None:
        used = {name: process.memory_info().rss / 2**20 for name, process in processes.items()}
        row = {"minute": (time.monotonic() - began) / 60, **used, **_open(server.process)}
        samples.append(row)
        print("  ".join(f"{name} {value:.1f}" for name, value in row.items()), flush=True)

    soak = Soak(server, clients, seconds)
    began = time.monotonic()
    soak.run(sample)
    print(f"{sum(soak.found.values())} requests: {dict(sorted(soak.found.items()))}")
    problems = [f"wrong: {text[:500]}" for text in soak.wrong[:10]]
    errors = [line for line in server.log_text().splitlines() if "ERROR" in line or "Traceback" in line]
    problems += [f"log: {line[:300]}" for line in errors[:10]]
    half = samples[len(samples) // 2 :]
    for name in (*processes, "files", "threads"):
        first, last = half[0][name], half[-1][name]
        if last > first * (1 + GROWTH) + 1:
            problems.append(f"{name} grew from {first:.0f} to {last:.0f} in the second half")
    return problems, {"samples": samples, "requests": dict(soak.found)}


def _open(process: psutil.Process) -> dict[str, int]:
    return {"files": process.num_fds(), "threads": process.num_threads()}


if __name__ == "__main__":
    sys.exit(main())
