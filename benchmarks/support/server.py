"""A `vllm serve` child process."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from .workspace import ROOT, BenchmarkError, Workspace, end_group

_STOP_SECONDS = 20
#: vLLM's command line.
VLLM = "vllm.entrypoints.cli.main"


class Server:
    """``vllm serve MODEL FLAGS`` while the ``with`` block runs.

    Args:
        start: the most seconds that it may take to start.
        environment: over the workspace's.
        module: what is run; takes vLLM's command line.

    address: http://HOST:PORT. model: its folder. seconds: how long it took to start. pid: of the process that
    serves HTTP.
    """

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        model: Path,
        flags: Sequence[str],
        start: float,
        environment: Mapping[str, str] | None = None,
        module: str = VLLM,
    ) -> None:
        self._workspace, self._name, self._start, self.model = workspace, name, start, model
        self._environment = environment or {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        port = self.address.rsplit(":", 1)[1]
        self._command = [sys.executable, "-m", module, "serve", str(model)]
        self._command += ["--served-model-name=model", "--host=127.0.0.1", f"--port={port}", *flags]
        self.log = f"{name}.log"
        self.pid = 0
        self.seconds = 0.0

    def __enter__(self) -> "Server":
        began = time.monotonic()
        with (self._workspace.work / self.log).open("w") as out:
            print("$", *self._command, file=out, flush=True)
            self._child = subprocess.Popen(
                self._command, cwd=ROOT, env={**self._workspace.environment, **self._environment}, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.pid = self._child.pid
        try:
            while not self._healthy():
                waited = time.monotonic() - began
                if self._child.poll() is not None:
                    raise BenchmarkError(
                        f"{self._name}: ended at its start\n{self._workspace.tail(self.log)}"
                    )
                if waited > self._start or self._workspace.left() < 0:
                    raise BenchmarkError(f"{self._name}: not up in {waited:.0f} s, see {self.log}")
                time.sleep(0.5)
        except BaseException:
            end_group(self._child)
            raise
        self.seconds = time.monotonic() - began
        return self

    def __exit__(self, *exception: Any) -> None:
        self._child.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_STOP_SECONDS)
        end_group(self._child)

    def post(self, path: str, body: bytes, timeout: float = 300) -> dict:
        """POST JSON, and the JSON that comes back.

        Raises:
            BenchmarkError: with the server's own words, where it refuses.
        """
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")[:500]
            raise BenchmarkError(f"{self._name}: HTTP {error.code}: {text}") from None
        except OSError as error:
            raise BenchmarkError(f"{self._name}: {error}; see {self.log}") from None

    def metrics(self) -> "Scrape":
        """One scrape."""
        with urllib.request.urlopen(f"{self.address}/metrics", timeout=30) as response:
            return Scrape(response.read().decode())

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=2) as response:
                return response.status == 200
        except OSError:
            return False


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Start servers side by side, end them together."""
    with ExitStack() as stack, ThreadPoolExecutor(len(servers)) as pool:
        list(pool.map(stack.enter_context, servers))
        yield


class Scrape:
    """What ``/metrics`` said."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self._samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name that carry these labels; 0 where there are none."""
        wanted = labels.items()
        return sum(s.value for s in self._samples if s.name == name and wanted <= s.labels.items())

    def since(self, earlier: "Scrape", name: str, **labels: str) -> float:
        """How much a counter has grown."""
        return self.total(name, **labels) - earlier.total(name, **labels)
