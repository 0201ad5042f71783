"""Fixtures shared by every test: tiny checkpoints, and an environment that suits a small CPU machine."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Before anything imports vLLM or transformers: both read these once. Nothing here needs the network,
# and engines that pin their threads to cores would fight over the same two.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
# Commands that run in this process ask for silence where nobody else has asked for anything.
os.environ["VLLM_LOGGING_LEVEL"] = "INFO"
os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
# The models are too small to gain from threads, and threads that wait for each other on busy cores spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.support import gate
from tests.support.forked import fork_engines
from tools.tiny_internvl import LARGE_LLAMA, SMALL_LLAMA, build_pair


def pytest_addoption(parser: pytest.Parser) -> None:
    gate.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(gate.Gate(config), "sgl-gate")
    fork_engines()


@pytest.fixture(scope="session")
def qwen2_pair(tmp_path_factory) -> tuple[Path, Path]:
    """(small, large) checkpoint directories with Qwen2 decoders (grouped-query attention)."""
    return build_pair(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="session")
def llama_pair(tmp_path_factory) -> tuple[Path, Path]:
    """(small, large) checkpoint directories with Llama decoders (multi-head attention)."""
    return build_pair(tmp_path_factory.mktemp("llama"), SMALL_LLAMA, LARGE_LLAMA)


@pytest.fixture(scope="module")
def alone(pair: tuple[Path, Path]) -> Iterator[Any]:
    """A module's own pair in this process, in the context that servers here have."""
    from tests.support.engines import Engines  # loads vLLM

    engines = Engines(pair, max_model_len=1024)
    yield engines
    engines.shutdown()


@pytest.fixture(scope="module")
def walked(alone: Any) -> Callable[..., tuple[Any, str]]:
    """(messages, longest answer, ``sgl_*`` keys) -> (outcome, the large model's text or the exit's)"""
    return lambda *asked, **sgl: asyncio.run(alone.walk_to_the_end(*asked, **sgl))


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    """Eight clients at once."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture(autouse=True)
def logs_are_heard() -> Iterator[None]:
    """vLLM sets its logger up once, by what the environment says when it is first imported. The command of
    some test may have asked for silence, and vLLM's records do not reach pytest's handlers."""
    logger = logging.getLogger("vllm")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = True
    yield
    logger.setLevel(level)
    logger.propagate = propagate


@pytest.fixture
def warnings_logged() -> Iterator[list[logging.LogRecord]]:
    """Our log records from WARNING on."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    ours = logging.getLogger("vllm.vllm_sgl")
    ours.addHandler(handler)
    yield records
    ours.removeHandler(handler)
