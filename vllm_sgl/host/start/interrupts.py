"""SIGTERM while an engine starts.

Symptom without it: vLLM's server turns SIGTERM into ``KeyboardInterrupt`` until it serves, but the socket
that an engine's start waits on swallows that (``zmq_socket_ctx``). The server then comes up in spite of it,
or, interrupted before the engine's handshake, waits ten minutes for an engine that waits for the server.
Plain vLLM 0.32 does the same. Remove when ``zmq_socket_ctx`` lets interrupts through.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.engine import utils

from vllm_sgl.host.patch import check_signature

#: How long an engine that is being ended may go on, in seconds; vLLM's default is 5. One that is loading its
#: model hears of its end when that is done.
_GRACE = "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS"


@contextmanager
def interruptible_start() -> Iterator[None]:
    """While open, ``KeyboardInterrupt`` ends an engine that starts, within about a second, and is raised."""
    original = check_signature(utils, "zmq_socket_ctx", (), "vllm_sgl/host/start/interrupts.py")
    grace = os.environ.get(_GRACE)

    @contextmanager
    def zmq_socket_ctx(*args: Any, **kwargs: Any) -> Iterator[Any]:
        interrupt = None
        with original(*args, **kwargs) as socket:
            try:
                yield socket
            except KeyboardInterrupt as caught:
                interrupt = caught
        if interrupt is not None:
            os.environ.setdefault(_GRACE, "1")
            raise interrupt

    utils.zmq_socket_ctx = zmq_socket_ctx
    try:
        yield
    finally:
        utils.zmq_socket_ctx = original
        if grace is None:
            os.environ.pop(_GRACE, None)
