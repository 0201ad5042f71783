"""The ``vllm.general_plugins`` entry point. Thin, idempotent; does nothing unless SGL is asked for."""

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing import parent_process


def register() -> None:
    """Called by vLLM in every process it starts."""
    from vllm_sgl.families import ACTIVE_ENV, register_variants

    if os.environ.get(ACTIVE_ENV):
        register_variants()
    if prefix := os.environ.get("SGL_VLLM_PROCESS_PREFIX"):  # a process of the small engine
        from vllm_sgl.host.process_name import take_name

        take_name(prefix)
    if parent_process() is None and asks_for_sgl(sys.argv):
        install()


def install() -> None:
    """Put SGL into vLLM's command line and server: three patched class attributes, and a function of
    ``vllm run-batch`` where that runs, all in ``host``."""
    from vllm_sgl.engine.large import use_sgl
    from vllm_sgl.errors import StartRefused
    from vllm_sgl.host import async_llm, engine_args
    from vllm_sgl.serve import flags

    engine_args.install(flags.add_flags, flags.fold, use_sgl)
    async_llm.install(_engine_client, StartRefused)


def _engine_client() -> type:
    from vllm_sgl.engine.client import SGLAsyncLLM
    from vllm_sgl.host import run_batch
    from vllm_sgl.serve import batch_file

    run_batch.install(batch_file.reporting)  # by now it is known whether this is that command
    return SGLAsyncLLM


def asks_for_sgl(argv: Sequence[str]) -> bool:
    """Whether a command line may carry SGL settings: a flag of ours, an ``--additional-config`` or a
    ``--config`` file that mentions us, or a call for help (which should list our flags)."""
    for flag, value in pairwise([*argv[1:], ""]):
        name, has_value, own = flag.partition("=")
        value = own if has_value else value
        name = name.replace("_", "-")
        if name.startswith("--sgl-") or name in ("-h", "--help"):
            return True
        if name.startswith("--additional-config") and "sgl" in flag + value:
            return True
        if name == "--config" and _mentions_us(value):
            return True
    return False


def _mentions_us(path: str) -> bool:
    if not os.path.isfile(path):
        return False  # vLLM reports the missing file in its own words
    with open(path, encoding="utf-8") as file:
        return "sgl" in file.read()
