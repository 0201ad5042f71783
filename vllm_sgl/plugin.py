"""The ``vllm.general_plugins`` entry point. Thin, idempotent. Unless SGL is asked for, vLLM stays as it is
but for one method that looks for our key in engine arguments (:mod:`vllm_sgl.host.start.engine_args`)."""

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing import parent_process
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from vllm import EngineArgs

    from vllm_sgl.config import SGLConfig


def register() -> None:
    """Called by vLLM in every process it starts."""
    from vllm_sgl.families import ACTIVE_ENV, register_variants

    if os.environ.get(ACTIVE_ENV):
        register_variants()
    if prefix := os.environ.get("SGL_VLLM_PROCESS_PREFIX"):  # a process of the small engine
        from vllm_sgl.host.start.process_name import take_name

        take_name(prefix)
    if parent_process() is None or "vllm.engine.arg_utils" in sys.modules:  # not in an engine's processes
        from vllm_sgl.host.start import engine_args

        engine_args.watch(_prepare)
    if parent_process() is None and asks_for_sgl(sys.argv):
        install()


def _prepare(arguments: "EngineArgs", offline: bool) -> None:
    """Prepare engine arguments that carry settings and that a Python program made, without a command line."""
    from vllm_sgl.engine import carried
    from vllm_sgl.families.variant import UseVariant

    if isinstance(arguments.hf_overrides, UseVariant):
        return
    config = carried.checked_settings(arguments.additional_config, offline)
    carried.guide_engines()
    carried.use_sgl(arguments, config)


def install() -> None:
    """Put SGL into vLLM's command line and server: three patched class attributes, two more where there are
    profiles, and a function of ``vllm run-batch`` where that runs, all in ``host``."""
    from vllm_sgl.engine.carried import use_sgl
    from vllm_sgl.errors import StartRefused
    from vllm_sgl.host.start import async_llm, engine_args
    from vllm_sgl.serve import flags

    engine_args.install(flags.add_flags, _fold, use_sgl)
    async_llm.install(_engine_client, StartRefused)


def _fold(args: "Namespace") -> "SGLConfig | None":
    """The settings of a command. Its profiles get model names of their own."""
    from vllm_sgl.serve import flags
    from vllm_sgl.serve.profiles import Naming

    config = flags.fold(args)
    if config is not None and config.profiles:
        from vllm_sgl.host.request import model_names

        naming = Naming(config.profiles)
        model_names.install(naming.note, naming.answered)
    return config


def _engine_client() -> type:
    from vllm_sgl.engine.client import SGLAsyncLLM
    from vllm_sgl.host.request import run_batch
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
