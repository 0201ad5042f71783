"""A memory limit as a container has it: a cgroup of its own, seen as the root of all cgroups."""

import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Where a limit and what was used at most are written; cgroup v2 and v1.
_ROOTS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
)
#: Runs a command inside a cgroup, in a mount namespace in which that cgroup is the root.
_ENTER = 'echo $$ > {own}/cgroup.procs && mount --bind {own} {root} && exec "$@"'


@dataclass(frozen=True)
class Container:
    own: Path
    root: Path
    peak: str

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs another one inside."""
        enter = _ENTER.format(own=shlex.quote(str(self.own)), root=shlex.quote(str(self.root)))
        return ["unshare", "--mount", "sh", "-c", enter, "sh", *arguments]

    def most_used(self) -> int:
        """Bytes, of all processes inside, up to now."""
        return int((self.own / self.peak).read_text())


@contextmanager
def container(limit: int) -> Iterator[Container]:
    """Memory of so many bytes, for whatever runs inside. Skips the test where this machine allows none: it
    takes root and a writable memory cgroup."""
    found = next(((root, most, peak) for root, most, peak in _ROOTS if (root / most).exists()), None)
    # The root of cgroup v2 has no limit of its own, but children may have one.
    root, most, peak = found or _ROOTS[0]
    own = root / f"vllm-sgl-test-{os.getpid()}"
    try:
        own.mkdir()
        (own / most).write_text(str(limit))
        subprocess.run(["unshare", "--mount", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        with suppress(OSError):
            own.rmdir()
        pytest.skip(f"no cgroup with a memory limit can be made here: {error}")
    try:
        yield Container(own, root, peak)
    finally:
        _remove(own)


def _remove(cgroup: Path) -> None:
    """It is busy until its last process is gone."""
    deadline = time.monotonic() + 10
    while cgroup.exists():
        try:
            cgroup.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
