"""Where a benchmark may write, how long it may take, and its child processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tools import allocator

ROOT = Path(__file__).resolve().parents[2]
#: What an installation is built from.
_PACKAGE = ("pyproject.toml", "README.md", "LICENSE", "vllm_sgl")
#: In a child: the plugin's entry point, and the package complete with its kernels.
_READY = (
    "from importlib.metadata import entry_points; import vllm_sgl.kernels; "
    "assert any(e.name == 'sgl' for e in entry_points(group='vllm.general_plugins'))"
)


class BenchmarkError(RuntimeError):
    """A benchmark cannot go on; its text is what the report says."""


@dataclass
class Workspace:
    """cpu: whether children run on CPUs. work: for checkpoints and logs. deadline: on `time.monotonic`'s
    clock; nothing runs longer. environment: of every child; :meth:`prepare` fills it in."""

    cpu: bool
    work: Path
    deadline: float
    environment: dict[str, str] = field(default_factory=dict)

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def prepare(self) -> None:
        """Make children able to load the plugin: vLLM finds it by its entry point, which a bare checkout
        on PYTHONPATH does not have. Installs a copy under ``work`` where it is missing.

        Raises:
            BenchmarkError: with the command to run by hand, where that fails.
        """
        self.environment = _environment(self.cpu, [str(ROOT)])
        if self.run([sys.executable, "-c", _READY], "ready.log", 120) == 0:
            return
        target = self.work / "site"
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
        # From a copy: setuptools would leave a build folder in the checkout, and take stale files from it.
        source = self.work / "source"
        source.mkdir(exist_ok=True)
        for name in _PACKAGE:
            copy = partial(shutil.copytree, dirs_exist_ok=True) if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
        code = self.run([*pip, "--target", str(target), str(source)], "install.log", 120)
        self.environment = _environment(self.cpu, [str(target), str(ROOT)])
        if code or self.run([sys.executable, "-c", _READY], "ready.log", 120):
            raise BenchmarkError(
                "vllm_sgl cannot be loaded as a plugin (no entry point in vllm.general_plugins, or no "
                f"vllm_sgl.kernels); see install.log and ready.log in {self.work}. Run\n"
                f"    {' '.join([*pip, '--target', str(target), str(ROOT)])}\n"
                f"and put {target} first on PYTHONPATH"
            )

    def describe(self) -> dict[str, Any]:
        """Machine, versions, commit. Asked in a child: asking for the GPU's name takes some of its memory for
        as long as one lives.

        Raises:
            BenchmarkError: where the child fails.
        """
        path = self.work / "environment.json"
        code = (
            "import json, sys; from benchmarks import report; "
            "open(sys.argv[1], 'w').write(json.dumps(report.environment()))"
        )
        if self.run([sys.executable, "-c", code, str(path)], "environment.log", 120):
            raise BenchmarkError(f"the environment cannot be read:\n{self.tail('environment.log')}")
        found = json.loads(path.read_text()) | {"threads": self.environment.get("OMP_NUM_THREADS", "all")}
        return found | ({"allocator": allocator.named(self.environment)} if self.cpu else {})

    def run(
        self, command: Sequence[str], log: str, seconds: float, environment: dict[str, str] | None = None
    ) -> int:
        """A child to its end: its exit code, 124 when it took too long. Output goes to ``work/log``."""
        with (self.work / log).open("w") as out:
            child = subprocess.Popen(
                command, cwd=ROOT, env={**self.environment, **(environment or {})}, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                return child.wait(max(1.0, min(seconds, self.left())))
            except subprocess.TimeoutExpired:
                return 124
            finally:
                end_group(child)

    def tail(self, log: str, lines: int = 20) -> str:
        """The end of a child's log, after its first traceback: what went wrong first is often far above."""
        text = (self.work / log).read_text(errors="replace").splitlines()
        first = next((i for i, line in enumerate(text) if "Traceback (most recent" in line), len(text))
        head = text[first : min(first + 40, len(text) - lines)]
        return "\n".join([*head, *(["..."] if head else []), *text[-lines:]])


def stoppable() -> None:
    """Let SIGTERM and SIGINT end this process as an error would, with its servers; shells start background
    jobs with SIGINT ignored."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def end_group(child: subprocess.Popen) -> None:
    """End a child and everything it started in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _environment(cpu: bool, first: list[str]) -> dict[str, str]:
    # PYTHONSAFEPATH: an installed copy is measured, not the checkout's own vllm_sgl/.
    path = [*first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    fixed = {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # vLLM forks by default where no server asks otherwise: not from a process with threads.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if cpu:  # no engine is bound to a core of its own: each may use all
        fixed["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return {**inherited, **fixed, **(allocator.preloaded(inherited) if cpu else {})}
