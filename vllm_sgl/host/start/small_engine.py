"""The second ``AsyncLLM``: the small model's engine, built from the large engine's config."""

import logging
from collections.abc import Callable
from typing import Any

from vllm import AsyncEngineArgs
from vllm.config import ModelConfig, VllmConfig
from vllm.transformers_utils.config import get_config, get_hf_text_config
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_sgl.config import SGLConfig
from vllm_sgl.host.start import cpu
from vllm_sgl.host.start.async_llm import UnguidedLLM
from vllm_sgl.host.start.encoder import without_encoder_graphs
from vllm_sgl.host.start.kv_cache import plain, stored_as
from vllm_sgl.host.start.process_name import naming_processes
from vllm_sgl.host.start.small_args import is_recurrent, small_arguments, tensor_parallel

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.engine.async_llm:AsyncLLM.errored",
    "vllm.v1.engine.async_llm:AsyncLLM.get_tokenizer",
    "vllm.v1.engine.async_llm:AsyncLLM.abort(request_id, internal)",
    "vllm.v1.engine.async_llm:AsyncLLM.collective_rpc(method, timeout, args)",
    "vllm.v1.engine.async_llm:AsyncLLM.generate(prompt, sampling_params, request_id, priority)",
)

#: The small engine's processes are called ``SmallEngineCore`` and so on.
PROCESS_PREFIX = "Small"

logger = logging.getLogger("vllm.vllm_sgl.small_engine")


def small_config(
    large: VllmConfig,
    config: SGLConfig,
    variant: Callable[[Any], Any],
    worker_extension: str,
    alike: Callable[[Any], bool],
    context: int | None = None,
) -> VllmConfig:
    """The small engine's config: the large one's ways, its own model, ``config.small_args`` last.

    Args:
        variant: vLLM's ``hf_overrides``, which choose the model's class, the user's own applied first.
        worker_extension: dotted name of the class that listens to attention in the workers.
        alike: of the small model's ``hf_config``, whether settings of the large model's processor are some of
            its own.
        context: its context length; None for the large engine's, or what its model was made for.

    Raises:
        ValueError: where the small model is missing or is no supported vision-language model, or the user's
            arguments would undo the guide.
    """
    whole, text = _configs(config.small, large.model_config)
    length = context or _context(text, large)
    arguments = small_arguments(large, config, length, alike(whole), is_recurrent(text))
    if (getattr(text, "sliding_window", None) or 0) >= arguments["max_model_len"]:
        # No window at all, but vLLM would give its layers a KV cache of another kind.
        arguments.setdefault("disable_sliding_window", True)
    if stored_as("auto", whole) != "auto" and (unquantised := plain(arguments["dtype"])):
        # The guide reads K, and a model computes as well over a cache that is not quantised.
        arguments.setdefault("kv_cache_dtype", unquantised)
    if "tensor_parallel_size" not in config.small_args:
        ranks = len(config.small_args.get("device_ids") or ()) or arguments["tensor_parallel_size"]
        arguments["tensor_parallel_size"] = tensor_parallel(ranks, text)
    try:
        engine_args = AsyncEngineArgs(
            **arguments, hf_overrides=variant, worker_extension_cls=worker_extension
        )
        without_encoder_graphs(engine_args)
        small = engine_args.create_engine_config(UsageContext.ENGINE_CONTEXT)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"--sgl-small {config.small}: {error}") from error
    _refuse_partial_attention(config.small, small.model_config)
    return small


def start_small(config: VllmConfig) -> AsyncLLM:
    """Start the engine; blocks until its model is loaded.

    Statistics stay off: a second Prometheus logger would unregister the first one's collectors.
    """
    # Not by from_vllm_config(): its config carries SGL settings too, for the model inside.
    with naming_processes(PROCESS_PREFIX):
        engine = UnguidedLLM(config, cpu.executor_class(config), log_stats=False, log_requests=False)
    logger.info("SGL: guide engine runs in process %s", ", ".join(map(str, engine_pids(engine))))
    return engine


def engine_pids(engine: AsyncLLM) -> list[int]:
    """Process ids of an engine's core processes."""
    manager = engine.engine_core.resources.engine_manager
    return [process.pid for process in manager.processes]


def _configs(small: str, large: ModelConfig) -> tuple[Any, Any]:
    """The configs of the small model and of its decoder."""
    try:
        whole = get_config(small, trust_remote_code=large.trust_remote_code, token=large.hf_token)
        return whole, get_hf_text_config(whole)
    except (OSError, ValueError, AttributeError, TypeError) as error:  # the last two: JSON, but no config
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
        ValueError: for a decoder with windows shorter than the context, or without attention.
    """
    window = small.get_sliding_window()
    if window is not None and window < small.max_model_len:
        raise ValueError(
            f"--sgl-small {name}: layers of this model see only the last {window} tokens, fewer than its "
            f"context of {small.max_model_len}, and so not every visual token. A guide must see the whole "
            "prompt: choose another small model"
        )
    if small.is_attention_free:
        raise ValueError(
            f"--sgl-small {name}: this model has no attention, so nothing says which visual tokens matter: "
            "choose another small model, with layers of full attention"
        )
