"""A server's engine processes."""

import re

import psutil

from tests.support.server import Server

SMALL_RUNS = re.compile(r"SGL: guide engine runs in process (\d+)")


def small_engines(server: Server) -> list[int]:
    """Process ids of the core processes of all small engines up to now, in the order of their starts."""
    return [int(pid) for pid in SMALL_RUNS.findall(server.log_text())]


def small_engine(server: Server) -> psutil.Process:
    """The core process of the small engine that was started last."""
    return psutil.Process(small_engines(server)[-1])


def large_engine(server: Server) -> psutil.Process:
    """The core process of the large engine; no small engine may be starting now."""
    small = small_engines(server)
    (core,) = [p for p in server.descendants() if "EngineCore" in p.name() and p.pid not in small]
    return core
