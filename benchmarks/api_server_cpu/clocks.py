"""CPU seconds of named parts of a process, counted where they run."""

import functools
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter

#: Scraped with the server's other metrics.
METRIC = "benchmark_cpu_seconds_total"

_seconds = Counter(METRIC, "CPU seconds of a part of the server's process.", ["part"])
_thread = threading.local()


def clock(owner: Any, name: str, part: str) -> None:
    """Count a function's CPU time for a part, less that of parts that it calls.

    Args:
        owner: a class or module that has the function, which is no coroutine: those run in turns.
    """
    original = inspect.getattr_static(owner, name)
    function = getattr(original, "__func__", original)
    replacement: Any = timed(function, _seconds.labels(part=part).inc)
    if isinstance(original, (classmethod, staticmethod)):
        replacement = type(original)(replacement)
    setattr(owner, name, replacement)


def timed(function: Callable[..., Any], add: Callable[[float], None]) -> Callable[..., Any]:
    """The function, telling after every call how long its thread computed, without timed calls inside."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        before = getattr(_thread, "counted", 0.0)
        _thread.counted = 0.0
        began = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent = time.thread_time() - began
            add(max(0.0, spent - _thread.counted))
            _thread.counted = before + spent

    return call
