"""vLLM's offline ``LLM``: everything but the engine that it builds for itself.

Symptom without it: ``LLM.__init__`` calls ``LLMEngine.from_engine_args`` by the name in its module, and
takes no engine. The name is replaced while one of ours is being built, and put back. Remove when ``LLM``
takes an engine.

``LLM`` itself is not guided. Symptom without :func:`refuse_carriers`: an ``LLMEngine`` whose config carries
settings runs, and nothing guides it. Remove when vLLM hands a config to plugins before it builds an engine.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from vllm.entrypoints import llm as llm_module
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.llm_engine import LLMEngine

from vllm_sgl.config import CONFIG_KEY
from vllm_sgl.host.patch import check_signature, wrap

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = ("vllm.v1.engine.llm_engine:LLMEngine.from_engine_args(engine_args, usage_context)",)

__all__ = ["UsageContext", "building_engine", "refuse_carriers"]

_FIX = "vllm_sgl/host/start/llm.py"
_LOCK = threading.Lock()


@contextmanager
def building_engine(build: Callable[..., Any]) -> Iterator[None]:
    """While open, vLLM's ``LLM`` gets its engine from ``build(engine_args, usage_context)``."""
    original = check_signature(llm_module, "LLMEngine", (), _FIX)
    check_signature(original, "from_engine_args", ("cls", "engine_args"), _FIX)

    class Builder:
        from_engine_args = staticmethod(build)

    with _LOCK:
        llm_module.LLMEngine = Builder
        try:
            yield
        finally:
            llm_module.LLMEngine = original


def refuse_carriers(refuse: Callable[[], None]) -> None:
    """Call ``refuse`` before an ``LLMEngine`` is built of a config that carries settings; idempotent."""
    make = partial(_refusing, refuse)
    wrap(LLMEngine, "__init__", ("self", "vllm_config"), "vllm_sgl/host/llm.py", make)


def _refusing(refuse: Callable[[], None], init: Any) -> Any:
    def init_unless_ours(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        settings = vllm_config.additional_config
        if isinstance(settings, Mapping) and CONFIG_KEY in settings:
            refuse()
        init(self, vllm_config, *args, **kwargs)

    return init_unless_ours
