"""A real ``vllm serve`` process, as a user starts it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

import openai
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.support import started
from tests.support.forked import AVAILABLE, Forked

#: Bounds in seconds; each is several times what an idle machine with two cores needs.
START_TIMEOUT = 300
STOP_TIMEOUT = 60
REQUEST_TIMEOUT = 120

#: Ports of servers, so many for each process that runs tests.
FIRST_PORT, PORTS = 21000, 500
_NUMBERS = count(os.getpid())

#: What suits the tiny checkpoints on a small CPU machine.
COMMON_FLAGS = (
    "--trust-remote-code", "--enforce-eager", "--dtype=float32", "--max-model-len=1024",
    "--kv-cache-memory-bytes=64000000", "--max-num-seqs=16", '--limit-mm-per-prompt={"image": 4}',
)  # fmt: skip

_SMALL_PID = re.compile(r"SGL: guide engine runs in process (\d+)")


def poll(condition: Callable[[], Any], timeout: float = 30, what: str = "the condition") -> Any:
    """The first true value of ``condition``, asked again and again until ``timeout`` seconds are over."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(0.05)
    return value


def vllm(*arguments: str) -> list[str]:
    """The command line of ``vllm ...`` under this very interpreter."""
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", *arguments]


def run_vllm(
    *arguments: str, timeout: float = 120, inside: Callable[[list[str]], list[str]] | None = None
) -> subprocess.CompletedProcess[str]:
    """``vllm ...`` to its end; stdout and stderr in one. inside: wraps the command line."""
    command = vllm(*arguments)
    return run_command(command, timeout) if inside is None else run_started(inside(command), timeout)


def run_command(
    command: list[str], timeout: float = 120, *, apart: bool = False,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """``python -m`` or ``python -c`` to its end, forked: vLLM is imported. Nothing it started outlives it.

    apart: stdout and stderr each for itself, else in one. environment: all of it; None: this process's.
    """
    if not AVAILABLE:
        return run_started(command, timeout, apart=apart, environment=environment)
    started.count("commands, forked")
    with TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        process = Forked(command, output, environment or os.environ, errors if apart else None)
        try:
            code = process.wait(timeout)
        finally:
            kill_group(process)
        texts = [path.read_text() if path.exists() else None for path in (output, errors)]
    return subprocess.CompletedProcess(process.args, code, *texts)


def run_started(
    command: list[str], timeout: float = 120, *, apart: bool = False,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """The same of any command, as a user starts it."""
    started.count("commands")
    process = subprocess.Popen(
        command, text=True, start_new_session=True, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE if apart else subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        kill_group(process)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


class Server:
    """``vllm serve MODEL FLAGS`` while the ``with`` block runs. All addresses are on 127.0.0.1.

    It is forked, with vLLM imported (``tests/support/forked.py``), or started as by users.
    """

    def __init__(
        self, model: Path, log: Path, flags: Sequence[str] = (), *,
        common: Sequence[str] = COMMON_FLAGS, inside: Callable[[list[str]], list[str]] | None = None,
        environment: Mapping[str, str] | None = None, as_users: bool = False,
    ) -> None:  # fmt: skip
        """common: flags that every server here shares. inside: wraps the command line of a server that is
        started as by users. environment: on top of this process's. as_users: start it as users do."""
        self.model = str(model)
        self.log = log
        self._flags = [*common, *flags]
        self._inside = inside or list
        self._forked = AVAILABLE and not as_users and inside is None
        self._environment = environment or {}
        self._process: subprocess.Popen | Forked | None = None
        self.port = 0

    def __enter__(self) -> "Server":
        self.port = free_port()
        address = ["--host=127.0.0.1", f"--port={self.port}"]
        command = self._inside(vllm("serve", self.model, *address, *self._flags))
        # A command that ran in this process may have asked for less; small_engine() reads the log.
        environment = {**os.environ, "VLLM_LOGGING_LEVEL": "INFO", **self._environment}
        if self._forked:
            started.count("servers, forked")
            self._process = Forked(command, self.log, environment)
        else:
            started.count("servers")
            with self.log.open("w") as log:
                self._process = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
                )
        try:
            poll(self._is_up, START_TIMEOUT, f"the server (log: {self.log})")
        except BaseException:
            self.close()
            raise
        self.client = self.new_client()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def close(self) -> None:
        """End it politely, then by force, with everything that it started."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_TIMEOUT)
            kill_group(self._process)

    def terminate(self) -> int:
        """SIGTERM as a service manager sends it; the exit code."""
        self._process.terminate()
        return self._process.wait(STOP_TIMEOUT)

    def send_signal(self, number: int) -> None:
        """To the process that serves HTTP; returns at once."""
        self._process.send_signal(number)

    def wait(self, timeout: float) -> int:
        """The exit code of a server that ends by itself."""
        return self._process.wait(timeout)

    def new_client(self) -> openai.OpenAI:
        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=REQUEST_TIMEOUT)

    def get(self, path: str) -> tuple[int, Any, str]:
        """(status, headers, body) of a plain GET."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=REQUEST_TIMEOUT) as response:
            return response.status, response.headers, response.read().decode()

    def metrics(self) -> "Metrics":
        return Metrics(self.get("/metrics")[2])

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def process(self) -> psutil.Process:
        """The process that serves HTTP."""
        return psutil.Process(self._process.pid)

    def descendants(self) -> list[psutil.Process]:
        """Every process below it that lives now."""
        return self.process.children(recursive=True)

    def small_engine(self) -> psutil.Process:
        """The small engine's core process, which runs the model too; the latest, if it was started again."""
        return psutil.Process(int(_SMALL_PID.findall(self.log_text())[-1]))

    def _is_up(self) -> bool:
        code = self._process.poll()
        assert code is None, f"the server ended with {code}:\n{self.log_text()[-3000:]}"
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False


class Metrics:
    """One scrape of ``/metrics``."""

    def __init__(self, text: str) -> None:
        self._samples: dict[tuple[str, frozenset], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                self._samples[key] = sample.value

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name that carry these labels; 0 where there are none."""
        wanted = set(labels.items())
        return sum(value for (n, own), value in self._samples.items() if n == name and wanted <= own)


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """The process does not move inside the block."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):  # a test may have killed it
            process.send_signal(signal.SIGCONT)


def settings(**sgl: Any) -> list[str]:
    """SGL settings in the form of ``--additional-config``."""
    return ["--additional-config=" + json.dumps({"sgl": sgl})]


def free_port() -> int:
    """A TCP port that nobody listens on now. Tests that run beside each other have ports of their own, below
    those that systems give to whoever asks for any."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for _ in range(PORTS):
        port = FIRST_PORT + PORTS * worker + next(_NUMBERS) % PORTS
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise AssertionError(f"expected a free port from {FIRST_PORT} on, but all are in use")


def kill_group(process: subprocess.Popen | Forked) -> None:
    """Kill a process that leads a session, and everything in it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # one that has just been started leads none yet
    process.wait()
