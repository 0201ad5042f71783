"""``vllm serve`` with SGL as a child process, started as a user would."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools import allocator

from .start_up import StartUp

START_SECONDS = 600


@contextmanager
def serving(large: str, small: str, engine_args: Mapping[str, Any], log: Path) -> Iterator[str]:
    """``vllm serve`` while the block runs; gives the API's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [
        "serve",
        large,
        "--sgl-small",
        small,
        "--sgl-follow-ups=off",  # one picture is asked about under several settings
        "--sgl-break-even=off",  # shows what guidance does, also where it would not pay
        *flags(engine_args),
        "--host",
        "127.0.0.1",
        "--port",
        port,
    ]
    print("$ vllm", *command, flush=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.cli.main", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(large),
        )
    try:
        wait_for(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def wait_for(server: subprocess.Popen, health: str, log: Path) -> None:
    """Until the server answers; shows its phases meanwhile.

    Raises:
        SystemExit: it ended, or took too long.
    """
    start_up, asked = StartUp(log), 0.0
    while start_up.seconds < START_SECONDS:
        start_up.look()
        if server.poll() is not None:
            raise SystemExit(f"\nthe server ended at its start; the end of {log}:\n{log.read_text()[-3000:]}")
        if start_up.seconds - asked >= 0.5:
            asked = start_up.seconds
            if _answers(health):
                start_up.ready()
                return
        time.sleep(0.1)
    raise SystemExit(f"\nno answer within {START_SECONDS} s; see {log}")


def _answers(health: str) -> bool:
    try:
        urllib.request.urlopen(health, timeout=2).close()
    except (urllib.error.URLError, TimeoutError):
        return False
    return True


def flags(engine_args: Mapping[str, Any]) -> Iterator[str]:
    """Engine arguments as a command line."""
    for name, value in engine_args.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield f"--{flag}"
            yield value if isinstance(value, str) else json.dumps(value)


def environment(model: str) -> dict[str, str]:
    """For child processes: a model on disk needs no network."""
    offline = {"HF_HUB_OFFLINE": "1"} if Path(model).is_dir() else {}
    return {**os.environ, **allocator.preloaded(os.environ), **offline}
