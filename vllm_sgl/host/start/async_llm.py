"""``AsyncLLM``: what the server builds as its engine client.

Symptom without it: ``vllm serve`` builds its engine client by ``AsyncLLM.from_vllm_config`` by name, with
no factory to register, and a Python program calls ``AsyncLLM`` itself, or a class that it derived from it.
Remove when the class of the engine client can be configured.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from vllm import SamplingParams
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_sgl.config import CONFIG_KEY, SGLConfig
from vllm_sgl.host.patch import wrap

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.engine.async_llm:AsyncLLM.input_processor.process_inputs"
    "(request_id, prompt, params, supported_tasks, lora_request, data_parallel_rank)",
)

__all__ = ["BULK", "AsyncLLM", "UnguidedLLM", "check_request", "guide_carriers", "install"]

#: Who builds an engine for a job whose requests all come at once: ``LLM`` and ``vllm run-batch``.
BULK = frozenset({UsageContext.LLM_CLASS, UsageContext.OPENAI_BATCH_RUNNER})


class UnguidedLLM(AsyncLLM):
    """An engine that is not guided, though its config carries settings: the small one."""


def guide_carriers(engine_client: Callable[[Any], type]) -> None:
    """Guide every ``AsyncLLM`` from now on whose config carries settings, however it is built; idempotent.

    A class of the user's keeps its methods: they stand above ours, which stand above vLLM's.

    engine_client: given the ``hf_overrides`` of the config's model, gives the class of guided engines, a
        subclass of ``AsyncLLM``, or refuses.
    """
    fix = "vllm_sgl/host/start/async_llm.py"
    wrap(AsyncLLM, "__init__", ("self", "vllm_config"), fix, partial(_becoming_ours, engine_client))


def _becoming_ours(engine_client: Callable[[Any], type], init: Any) -> Any:
    signature = inspect.signature(init)

    def init_or_ours(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs).arguments
        config = given["vllm_config"]
        settings = config.additional_config
        carries = isinstance(settings, Mapping) and CONFIG_KEY in settings
        if not carries or isinstance(self, UnguidedLLM):
            init(self, *args, **kwargs)
            return
        ours = engine_client(config.model_config.hf_overrides)
        if isinstance(self, ours):
            init(self, *args, **kwargs)
            return
        kind = type(self)
        # vLLM's own method runs if this start fails: only a class that ours precedes shuts both engines down.
        self.__class__ = ours if kind is AsyncLLM else type(kind.__name__, (kind, ours), {})
        given.pop("self")
        ours.__init__(self, **given)  # type: ignore[misc]

    return init_or_ours


def install(engine_client: Callable[[], type], refused: type[Exception]) -> None:
    """Build an engine client of ours wherever a config carries SGL settings; idempotent.

    engine_client: gives its class, a subclass of ``AsyncLLM``, when it is needed. refused: what it raises
    where the pair cannot start: the text of that ends the command, without a traceback.
    """
    fix = "vllm_sgl/host/start/async_llm.py"
    make = partial(_choosing_class, engine_client, refused)
    wrap(AsyncLLM, "from_vllm_config", ("cls", "vllm_config"), fix, make)


def _choosing_class(
    engine_client: Callable[[], type], refused: type[Exception], from_vllm_config: Any
) -> Any:
    def from_vllm_config_or_ours(cls: type, vllm_config: Any, *args: Any, **kwargs: Any) -> AsyncLLM:
        if cls is not AsyncLLM or SGLConfig.of(vllm_config.additional_config) is None:
            return from_vllm_config(cls, vllm_config, *args, **kwargs)
        with _ending(refused):
            engine: AsyncLLM = from_vllm_config(engine_client(), vllm_config, *args, **kwargs)
        # What servers ask before they serve, and again as they serve.
        tasks = engine.get_supported_tasks

        async def get_supported_tasks() -> Any:
            with _ending(refused):
                return await tasks()

        vars(engine)["get_supported_tasks"] = get_supported_tasks
        return engine

    return from_vllm_config_or_ours


@contextmanager
def _ending(refused: type[Exception]) -> Iterator[None]:
    """A refusal inside the block ends the command: Python prints the text, and ends with 1. One line,
    whatever lines a library's words have."""
    try:
        yield
    except refused as error:
        text = " ".join(str(error).split())
        raise SystemExit(f"vllm serve: SGL cannot start: {text}") from None


async def check_request(
    engine: AsyncLLM, prompt: Any, params: SamplingParams, request_id: str, more: Mapping[str, Any]
) -> None:
    """Refuse what the engine refuses when it is given a request, in its words.

    Args:
        more: what ``AsyncLLM.generate`` is given besides.

    Raises:
        ValueError: vLLM's; most are a ``VLLMValidationError``, a 400 over HTTP.
    """
    engine.input_processor.process_inputs(
        request_id,
        prompt,
        params,
        supported_tasks=await engine.get_supported_tasks(),
        lora_request=more.get("lora_request"),
        data_parallel_rank=more.get("data_parallel_rank"),
    )
