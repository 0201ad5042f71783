"""What all sections share: where they may write, how long they may take, and their child processes."""

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

ROOT = Path(__file__).resolve().parents[2]
#: What an installation is built from.
_PACKAGE = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "vllm_sgl", "kernels")
#: In a child: the plugin's entry point, and the package complete with its kernels.
_READY = (
    "from importlib.metadata import entry_points; import vllm_sgl.kernels; "
    "assert any(e.name == 'sgl' for e in entry_points(group='vllm.general_plugins'))"
)


class SectionError(RuntimeError):
    """A section cannot go on; its text is what the report says."""


@dataclass
class Section:
    """What a section found. Each row is one line of its table; a failure makes the section red."""

    rows: list[dict] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sides: list = field(default_factory=list)  # of `serve`, for `memory`

    def expect(self, holds: bool, otherwise: str) -> bool:
        if not holds:
            self.failures.append(otherwise)
        return holds


@dataclass
class Session:
    """smoke: CPU and tiny models. work: for checkpoints and logs. deadline: on `time.monotonic`'s clock.
    found: sections that have run; a later one may build on an earlier one's rows."""

    smoke: bool
    work: Path
    deadline: float
    environment: dict[str, str] = field(default_factory=dict)
    found: dict[str, Section] = field(default_factory=dict)

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def prepare(self) -> None:
        """Make children able to load the plugin: vLLM finds it by its entry point, which a bare checkout
        on PYTHONPATH does not have. Installs a copy under ``work`` where it is missing.

        Raises:
            SectionError: with the command to run by hand, where that fails.
        """
        self.environment = _environment(self.smoke, [str(ROOT)])
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
        self.environment = _environment(self.smoke, [str(target), str(ROOT)])
        if code or self.run([sys.executable, "-c", _READY], "ready.log", 120):
            raise SectionError(
                "vllm_sgl cannot be loaded as a plugin (no entry point in vllm.general_plugins, or no "
                f"vllm_sgl.kernels); see install.log and ready.log in {self.work}. Run\n"
                f"    {' '.join([*pip, '--target', str(target), str(ROOT)])}\n"
                f"and put {target} first on PYTHONPATH"
            )

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


def end_group(child: subprocess.Popen) -> None:
    """End a child and everything it started in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _environment(smoke: bool, first: list[str]) -> dict[str, str]:
    # PYTHONSAFEPATH: the checkout's own vllm_sgl/ has no kernels/ inside, so the current directory must
    # not come before an installed copy.
    path = [*first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    fixed = {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        # vLLM forks by default where no server asks otherwise: not from a process with threads.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if smoke:
        fixed["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return {**inherited, **fixed}
