"""The second ``AsyncLLM``: the small model's engine, built from the large engine's config."""

import logging
from collections.abc import Callable
from typing import Any

from vllm import AsyncEngineArgs
from vllm.config import ModelConfig, VllmConfig
from vllm.platforms import current_platform
from vllm.transformers_utils.config import get_config, get_hf_text_config
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_sgl.config import CONFIG_KEY, SGLConfig
from vllm_sgl.host import cpu

logger = logging.getLogger("vllm.vllm_sgl.small_engine")


def small_config(
    large: VllmConfig, config: SGLConfig, variant: Callable[[Any], Any], worker_extension: str
) -> VllmConfig:
    """The small engine's config: the large one's ways, its own model, ``config.small_args`` last.

    Args:
        variant: vLLM's ``hf_overrides``, which choose the model's class.
        worker_extension: dotted name of the class that listens to attention in the workers.

    Raises:
        ValueError: where the small model is missing or is no supported vision-language model.
    """
    model, scheduler = large.model_config, large.scheduler_config
    text = _text_config(config.small, model.trust_remote_code)
    arguments: dict[str, Any] = {
        "model": config.small,
        "trust_remote_code": model.trust_remote_code,
        "dtype": model.dtype,
        "seed": model.seed,
        "max_model_len": _context(text, large),
        "enforce_eager": model.enforce_eager,
        "mm_processor_kwargs": model.multimodal_config.mm_processor_kwargs,
        "load_format": large.load_config.load_format,
        "tensor_parallel_size": large.parallel_config.tensor_parallel_size,
        "max_num_seqs": scheduler.max_num_seqs,
        # vLLM's default for an engine without a server is 2,048: less than one large image.
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "scheduling_policy": scheduler.policy,
        "hf_overrides": variant,
        "additional_config": {CONFIG_KEY: config.model_dump()},
        "worker_extension_cls": worker_extension,
        # A guide request must compute every query row, and the processor cache would hold back pixels
        # that this engine has not seen.
        "enable_prefix_caching": False,
        "mm_processor_cache_gb": 0,
        # Async scheduling computes a row past the end of an answer; it must not count.
        "async_scheduling": False,
    }
    if not model.enforce_eager and not current_platform.is_cpu():
        # A fully captured graph replays attention without Python, and with it without the guide.
        arguments["compilation_config"] = {"cudagraph_mode": "PIECEWISE"}
    if model.multimodal_config.limit_per_prompt:
        arguments["limit_mm_per_prompt"] = {
            name: model.multimodal_config.get_limit_per_prompt(name)
            for name in model.multimodal_config.limit_per_prompt
        }
    arguments.update(config.small_args)
    if (getattr(text, "sliding_window", None) or 0) >= arguments["max_model_len"]:
        # No window at all, but vLLM would give its layers a KV cache of another kind.
        arguments.setdefault("disable_sliding_window", True)
    try:
        small = AsyncEngineArgs(**arguments).create_engine_config(UsageContext.ENGINE_CONTEXT)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--sgl-small {config.small}: {error}") from error
    _refuse_partial_attention(config.small, small.model_config)
    return small


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


def _text_config(small: str, trust_remote_code: bool) -> Any:
    """The config of the small model's decoder."""
    try:
        return get_hf_text_config(get_config(small, trust_remote_code=trust_remote_code))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--sgl-small {small}: no model there ({error}). Give a local directory or a model name that "
            "can be downloaded, and --trust-remote-code where its config needs it"
        ) from error


def _context(text: Any, large: VllmConfig) -> int:
    """The large model's context length, or less where the small model was made for less."""
    limit = getattr(text, "max_position_embeddings", None)
    most = large.model_config.max_model_len
    return min(most, limit) if limit else most


def _refuse_partial_attention(name: str, small: ModelConfig) -> None:
    """Before anything is loaded: only attention over the whole prompt says what matters in it.

    Raises:
        ValueError: for a decoder with windows shorter than the context, or with layers without attention.
    """
    window = small.get_sliding_window()
    if window is not None and window < small.max_model_len:
        raise ValueError(
            f"--sgl-small {name}: layers of this model see only the last {window} tokens, fewer than its "
            f"context of {small.max_model_len}, and so not every visual token. A guide must see the whole "
            "prompt: choose another small model"
        )
    if small.is_hybrid or small.is_attention_free:
        raise ValueError(
            f"--sgl-small {name}: this model has layers without attention, whose view of the prompt cannot "
            "be read: choose another small model, with attention in every layer"
        )
