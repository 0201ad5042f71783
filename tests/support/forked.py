"""Processes that start with vLLM imported.

Importing vLLM is three quarters of what a server of tiny models does at its start: its own process and each
engine's import it anew. Here one process imports it, once for each process that runs tests, and forks a
copy of itself for every command (``vllm serve ...``) and engine. It has no thread, has loaded no plugin and
read no argument. So all that vLLM and its plugins do in a new process, they still do.

What differs from a process of its own: the modules of :data:`PRELOAD` are there already, torch compiles
nothing, and an engine's process is a child of a fork server. ``tests/hard`` and one server of ``tests/serve``
start as users' servers do.
"""

import atexit
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import context, forkserver, process, resource_tracker, spawn, util
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import setproctitle

from tests.support import started

#: Not where there is a GPU: its driver does not live on in a copy.
AVAILABLE = not Path("/dev/nvidiactl").exists()
#: What API servers and engines import. This module has to be in the copies, too.
PRELOAD = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
)
#: Of this process before any test changes it.
_ENVIRONMENT = dict(os.environ)
_STARTING = threading.Lock()
setproctitle.getproctitle()  # finds the title's memory, which it cannot once the environment has changed
_MainProcess = type(process.current_process())  # imported by a process that no other one started


class Forked:
    """A running command, with what tests use of ``subprocess.Popen``. It leads a session."""

    def __init__(
        self, command: Sequence[str], output: Path, environment: Mapping[str, str], errors: Path | None = None
    ) -> None:  # fmt: skip
        """command: ``[sys.executable, "-m", module, ...]`` or ``[sys.executable, "-c", code, ...]``.
        output: the file for stdout. environment: all of it. errors: the file for stderr; None: output's."""
        assert command[0] == sys.executable, command
        self.args = list(command)
        _start_image()
        arguments = (self.args[1:], str(output), str(errors or output), dict(environment))
        self._process = multiprocessing.get_context("forkserver").Process(target=_run, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork_engines() -> None:
    """From now on, engines that this process starts are forked as well."""
    if AVAILABLE:
        contexts = context._concrete_contexts
        contexts["spawn"] = contexts["forkserver"]


def _start_image() -> None:
    """The process that is copied; does nothing where it runs."""
    with _STARTING:
        if forkserver._forkserver._forkserver_pid is not None:
            return
        here = dict(os.environ)
        os.environ.clear()
        os.environ.update(_ENVIRONMENT, TORCHDYNAMO_DISABLE="1")
        try:
            forkserver.set_forkserver_preload([__name__, *PRELOAD])
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(here)


def _preparation(name: str, _of: Callable = spawn.get_preparation_data) -> dict[str, Any]:
    """What a new process is told of its parent: the environment too, which copies cannot inherit."""
    if name.startswith("EngineCore"):
        started.count("engines of LLMs")
    return {**_of(name), "environment": dict(os.environ)}


def _prepare(data: dict[str, Any], _do: Callable = spawn.prepare) -> None:
    if environment := data.pop("environment", None):
        os.environ.clear()
        os.environ.update(environment)
    gc.freeze()  # what was imported need not be searched for garbage again and again
    _do(data)


def _connect(fds: list[int], _do: Callable = forkserver.connect_to_new_process) -> tuple[int, int]:
    if process.parent_process() is None and forkserver._forkserver._forkserver_address is None:
        _start_image()
    return _do(fds)


spawn.get_preparation_data = _preparation
spawn.prepare = _prepare
forkserver.connect_to_new_process = _connect


def _run(command: list[str], output: str, errors: str, environment: dict[str, str]) -> NoReturn:
    """In a copy: be the command, to its end."""
    assert set(PRELOAD) <= sys.modules.keys(), "the fork server could not import vLLM"
    os.setsid()
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if errors != output:
        with open(errors, "wb") as file:
            os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    process._parent_process = None
    process._current_process = _MainProcess()
    process._children = set()
    _fork_image()
    fork_engines()
    code = _code_of(command)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _code_of(command: list[str]) -> int:
    """Run it as Python's main program; its exit code."""
    try:
        match command:
            case ["-m", module, *arguments]:
                sys.argv = [module, *arguments]
                sys.modules.pop(module, None)
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            case ["-c", code, *arguments]:
                sys.argv = ["-c", *arguments]
                main = sys.modules["__main__"] = ModuleType("__main__")
                exec(compile(code, "<string>", "exec"), vars(main))
            case _:
                raise ValueError(f"expected -m or -c, got {command}")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _fork_image() -> None:
    """In a command that has done nothing yet: the process that its engines are copied from, as its child."""
    server, tracker = forkserver._forkserver, resource_tracker._resource_tracker
    os.close(server._forkserver_alive_fd)
    os.close(tracker._fd)
    server._forkserver_alive_fd = server._forkserver_address = server._forkserver_pid = None
    tracker._fd = tracker._pid = None
    tracker.ensure_running()
    start = util.spawnv_passfds
    util.spawnv_passfds = _fork_a_server
    try:
        server.ensure_running()
    finally:
        util.spawnv_passfds = start


def _fork_a_server(_path: str, _arguments: list[str], fds: list[int]) -> int:
    """In place of ``spawnv_passfds``, which would start another Python."""
    if pid := os.fork():
        return pid
    try:
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd > 2 and fd not in fds:
                with suppress(OSError):
                    os.close(fd)
        forkserver.main(*fds, [])
    finally:
        os._exit(0)
