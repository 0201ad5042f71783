"""vLLM's offline ``LLM``: everything but the engine that it builds for itself.

Symptom without it: ``LLM.__init__`` calls ``LLMEngine.from_engine_args`` by the name in its module, and
takes no engine. The name is replaced while one of ours is being built, and put back. Remove when ``LLM``
takes an engine.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vllm.entrypoints import llm as llm_module
from vllm.usage.usage_lib import UsageContext

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = ("vllm.v1.engine.llm_engine:LLMEngine.from_engine_args(engine_args, usage_context)",)

__all__ = ["UsageContext", "building_engine"]

_LOCK = threading.Lock()


@contextmanager
def building_engine(build: Callable[..., Any]) -> Iterator[None]:
    """While open, vLLM's ``LLM`` gets its engine from ``build(engine_args, usage_context)``."""
    original = getattr(llm_module, "LLMEngine", None)
    if original is None or not hasattr(original, "from_engine_args"):
        raise RuntimeError(
            "vllm.entrypoints.llm.LLMEngine.from_engine_args is missing: adapt vllm_sgl/host/start/llm.py"
        )

    class Builder:
        from_engine_args = staticmethod(build)

    with _LOCK:
        llm_module.LLMEngine = Builder
        try:
            yield
        finally:
            llm_module.LLMEngine = original
