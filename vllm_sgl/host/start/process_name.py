"""``vllm.logger``'s name of a process: which of the two engines a log line comes from.

Symptom without it: both engines' processes log as ``(EngineCore pid=N)``, and vLLM has no setting for another
name. vLLM names a process first and loads plugins then. Remove when an engine's processes can be named.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from vllm.logger import set_vllm_process_name
from vllm.utils.system_utils import get_mp_context, set_process_title

#: Set in the environment of processes that are to have this before their names.
PREFIX_ENV = "SGL_VLLM_PROCESS_PREFIX"


@contextmanager
def naming_processes(prefix: str) -> Iterator[None]:
    """Processes that are started inside the block have names that begin like this; a block inside it, in
    another thread too, has the last word."""
    os.environ[PREFIX_ENV] = prefix
    try:
        yield
    finally:
        os.environ.pop(PREFIX_ENV, None)


def take_name(prefix: str) -> None:
    """Rename this process, in its log lines and in lists of processes."""
    name = prefix + str(get_mp_context().current_process().name)
    set_vllm_process_name(name)
    set_process_title(name)
