"""The second ``AsyncLLM``: the small model's engine, built from the large engine's config."""

import logging
from collections.abc import Callable
from typing import Any

from vllm import AsyncEngineArgs
from vllm.config import VllmConfig
from vllm.transformers_utils.config import get_config, get_hf_text_config
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_sgl.config import SGLConfig
from vllm_sgl.host import cpu
from vllm_sgl.host.encoder_graphs import without_encoder_graphs
from vllm_sgl.host.small_args import small_arguments

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.engine.async_llm:AsyncLLM.errored",
    "vllm.v1.engine.async_llm:AsyncLLM.get_tokenizer",
    "vllm.v1.engine.async_llm:AsyncLLM.abort(request_id, internal)",
    "vllm.v1.engine.async_llm:AsyncLLM.collective_rpc(method, timeout, args)",
    "vllm.v1.engine.async_llm:AsyncLLM.generate(prompt, sampling_params, request_id, priority)",
)

logger = logging.getLogger("vllm.vllm_sgl.small_engine")


def small_config(
    large: VllmConfig, config: SGLConfig, variant: Callable[[Any], Any], worker_extension: str
) -> VllmConfig:
    """The small engine's config: the large one's ways, its own model, ``config.small_args`` last.

    Args:
        variant: vLLM's ``hf_overrides``, which choose the model's class, the user's own applied first.
        worker_extension: dotted name of the class that listens to attention in the workers.

    Raises:
        ValueError: where the small model is missing or is no supported vision-language model, or the user's
            arguments would undo the guide.
    """
    arguments = small_arguments(large, config, _context(config.small, large))
    try:
        engine_args = AsyncEngineArgs(
            **arguments, hf_overrides=variant, worker_extension_cls=worker_extension
        )
        without_encoder_graphs(engine_args)
        return engine_args.create_engine_config(UsageContext.ENGINE_CONTEXT)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--sgl-small {config.small}: {error}") from error


def start_small(config: VllmConfig) -> AsyncLLM:
    """Start the engine; blocks until its model is loaded.

    Statistics stay off: a second Prometheus logger would unregister the first one's collectors.
    """
    # Not by from_vllm_config(): its config carries SGL settings too, for the model inside.
    engine = AsyncLLM(config, cpu.executor_class(config), log_stats=False, log_requests=False)
    logger.info("SGL: guide engine runs in process %s", ", ".join(map(str, engine_pids(engine))))
    return engine


def engine_pids(engine: AsyncLLM) -> list[int]:
    """Process ids of an engine's core processes."""
    manager = engine.engine_core.resources.engine_manager
    return [process.pid for process in manager.processes]


def _context(small: str, large: VllmConfig) -> int:
    """The large model's context length, or less where the small model was made for less."""
    try:
        own = get_config(small, trust_remote_code=large.model_config.trust_remote_code)
        limit = getattr(get_hf_text_config(own), "max_position_embeddings", None)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--sgl-small {small}: no model there ({error}). Give a local directory or a model name that "
            "can be downloaded, and --trust-remote-code where its config needs it"
        ) from error
    most = large.model_config.max_model_len
    return min(most, limit) if limit else most
