"""Runs `vllm bench serve` again and again, but loads vLLM once: that takes seconds of all cores.

Reads lines of JSON, `[log file, arguments]`, and forks a child for each; answers with its exit code.
"""

import contextlib
import json
import os
import runpy
import sys
from typing import NoReturn

_BENCH = ("vllm", "bench", "serve")


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM logs to stdout
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        _vllm("--help")
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        log, arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            _child(log, arguments)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=replies, flush=True)


def _child(log: str, arguments: list[str]) -> NoReturn:
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = _vllm(*arguments)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _vllm(*arguments: str) -> int:
    """The command line tool to its end; its exit code."""
    sys.argv = [*_BENCH, *arguments]
    try:
        runpy.run_module("vllm.entrypoints.cli.main", run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    main()
