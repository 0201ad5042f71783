"""``AsyncLLM``: what the server builds as its engine client.

Symptom without it: ``vllm serve`` builds its engine client by ``AsyncLLM.from_vllm_config`` by name, with
no factory to register. Remove when the class of the engine client can be configured.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_sgl.config import SGLConfig
from vllm_sgl.host.patch import wrap

__all__ = ["BULK", "AsyncLLM", "install"]

#: Who builds an engine for a job whose requests all come at once: ``LLM`` and ``vllm run-batch``.
BULK = frozenset({UsageContext.LLM_CLASS, UsageContext.OPENAI_BATCH_RUNNER})


def install(engine_client: Callable[[], type], refused: type[Exception]) -> None:
    """Build an engine client of ours wherever a config carries SGL settings; idempotent.

    engine_client: gives its class, a subclass of ``AsyncLLM``, when it is needed. refused: what it raises
    where the pair cannot start: the text of that ends the command, without a traceback.
    """
    fix = "vllm_sgl/host/async_llm.py"
    make = partial(_choosing_class, engine_client, refused)
    wrap(AsyncLLM, "from_vllm_config", ("cls", "vllm_config"), fix, make)


def _choosing_class(
    engine_client: Callable[[], type], refused: type[Exception], from_vllm_config: Any
) -> Any:
    def from_vllm_config_or_ours(cls: type, vllm_config: Any, *args: Any, **kwargs: Any) -> AsyncLLM:
        if cls is not AsyncLLM or SGLConfig.of(vllm_config.additional_config) is None:
            return from_vllm_config(cls, vllm_config, *args, **kwargs)
        try:
            return from_vllm_config(engine_client(), vllm_config, *args, **kwargs)
        except refused as error:
            # Python prints the text and ends with 1.
            raise SystemExit(f"vllm serve: SGL cannot start: {error}") from None

    return from_vllm_config_or_ours
