"""Device memory in use: what the driver says, so that every process counts."""

import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

GIB = 1 << 30
_QUERY = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]


def device_bytes() -> int:
    """Bytes in use on the first visible GPU, by all processes; 0 where the driver does not say."""
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    try:
        asked = subprocess.run([*_QUERY, f"--id={device}"], capture_output=True, text=True, check=True)
        return int(asked.stdout.split()[0]) << 20
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return 0


def tree_bytes(pid: int) -> int:
    """Resident bytes of a process and its children: what stands in for a device in a smoke run."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.Error:
        pass
    return total


def settled(read: Callable[[], int], seconds: float = 30) -> int:
    """Bytes in use once they no longer fall: a device is freed some time after its process ended."""
    end = time.monotonic() + seconds
    last = read()
    while time.monotonic() < end:
        time.sleep(1)
        now = read()
        if now >= last:
            return now
        last = now
    return last


class Peak:
    """The most memory in use while the ``with`` block runs, sampled."""

    def __init__(self, read: Callable[[], int], every: float = 0.2) -> None:
        self._read, self._every = read, every
        self._over = threading.Event()
        self.bytes = 0

    def __enter__(self) -> "Peak":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            over = self._over.is_set()  # asked first: after the end comes one more look
            self.bytes = max(self.bytes, self._read())
            if over:
                return
            self._over.wait(self._every)
