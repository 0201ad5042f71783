"""``vllm run-batch``: each line of a batch file is a request that comes through no HTTP server.

Symptom without it: the settings of a line are not read, and its output has no report. The
function that answers a line is called by its name in its module. Remove when it takes middleware.
"""

import sys
from collections.abc import Callable
from typing import Any

from vllm_sgl.host.patch import wrap

_MODULE = "vllm.entrypoints.launchers.run_batch"


def install(make: Callable[[Any], Any]) -> None:
    """Answer lines by ``make(run_request)``; idempotent, and nothing where this is another command.

    ``run_request(serving_engine_func, request, ...)`` is a coroutine function and runs as a task.
    """
    if _MODULE not in sys.modules:
        return
    from vllm.entrypoints.launchers import run_batch

    fix = "vllm_sgl/host/request/run_batch.py"
    wrap(run_batch, "run_request", ("serving_engine_func", "request"), fix, make)
