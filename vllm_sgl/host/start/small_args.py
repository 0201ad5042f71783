"""``EngineArgs`` of the small engine: the large engine's ways, its own model, the user's wishes last."""

import logging
from collections.abc import Mapping
from typing import Any

from vllm.config import VllmConfig
from vllm.platforms import current_platform

from vllm_sgl.config import CONFIG_KEY, CarriedSettings, SGLConfig
from vllm_sgl.host.start.kv_cache import PLAIN

logger = logging.getLogger("vllm.vllm_sgl.small_args")

_UTILIZATION = "gpu_memory_utilization"
#: What the guide is made of. Another value would not change the guide but undo it, some without a word.
_OURS = {
    "model": "it is --sgl-small",
    "additional_config": "it carries the settings to the engine's processes",
    "worker_extension_cls": "it listens to attention",
    "mm_processor_cache_gb": "the cache would hold back pixels that this engine has not seen",
    "async_scheduling": "it computes a row past the end of an answer, which must not count",
    "pipeline_parallel_size": "it runs in one stage",
    "data_parallel_size": "there is one small engine",
    _UTILIZATION: "its share of the memory is --sgl-small-memory, unless it has device_ids of its own",
    "video_pruning_rate": "it would prune inside the vision encoder, by a rule of its own",
}
#: Caches that hold K as it is.
_READABLE_CACHES = ("auto", *PLAIN)
#: How weights are found and read, which is a matter of the machine.
_LOADING = (
    "load_format", "download_dir", "ignore_patterns", "safetensors_load_strategy",
    "safetensors_prefetch_num_threads", "safetensors_prefetch_block_size", "pt_load_map_location",
    "use_tqdm_on_load",
)  # fmt: skip
#: Tokens of a block of the KV cache on CPUs, whose kernels want multiples of 32.
CPU_BLOCK = 32
#: Heads of a gated delta net, which are split over ranks.
_STATE_HEADS = ("linear_num_key_heads", "linear_num_value_heads")
#: Modes in which a step calls attention through Python, where the guide listens.
_READABLE_GRAPHS = ("NONE", "PIECEWISE")


def small_arguments(
    large: VllmConfig,
    config: SGLConfig,
    max_model_len: int,
    same_format: bool = True,
    recurrent: bool = False,
) -> dict[str, Any]:
    """Arguments of the small engine, but for what chooses its model's class and listens in its workers.

    Args:
        same_format: whether settings of the large model's processor are some of the small one's too.
        recurrent: whether layers of the small model carry a state from token to token.

    Raises:
        ValueError: where ``config.small_args`` has what the guide sets itself.
    """
    model, scheduler = large.model_config, large.scheduler_config
    arguments: dict[str, Any] = {
        "model": config.small,
        "trust_remote_code": model.trust_remote_code,
        "dtype": model.dtype,
        "seed": model.seed,
        "max_model_len": max_model_len,
        "enforce_eager": model.enforce_eager,
        "mm_processor_kwargs": model.multimodal_config.mm_processor_kwargs if same_format else None,
        "hf_token": model.hf_token,
        "config_format": model.config_format,
        **{name: getattr(large.load_config, name) for name in _LOADING},
        "tensor_parallel_size": large.parallel_config.tensor_parallel_size,
        "max_num_seqs": scheduler.max_num_seqs,
        # vLLM's default for an engine without a server is 2,048: less than one large image.
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "scheduling_policy": scheduler.policy,
        "additional_config": {CONFIG_KEY: CarriedSettings(config)},
        # With another scheduler, hits would hide query rows; and a state is kept at the end of a hit alone,
        # not where the guide would end it.
        "enable_prefix_caching": "scheduler_cls" not in config.small_args and not recurrent,
        "mm_processor_cache_gb": 0,
        "async_scheduling": False,
    }
    if "load_format" not in config.small_args:  # it belongs to the format
        arguments["model_loader_extra_config"] = large.load_config.model_loader_extra_config
    if current_platform.is_cpu() and not recurrent:
        # vLLM's 128 are more than most questions about an image, and the prefix cache has whole blocks alone.
        arguments["block_size"] = CPU_BLOCK
    if not current_platform.is_cpu() and not model.enforce_eager:
        # A fully captured graph replays attention without Python, and with it without the guide.
        arguments["compilation_config"] = {"cudagraph_mode": "PIECEWISE"}
    if backend := _readable_backend():
        arguments["attention_backend"] = backend
    if model.multimodal_config.limit_per_prompt:
        arguments["limit_mm_per_prompt"] = {
            name: model.multimodal_config.get_limit_per_prompt(name)
            for name in model.multimodal_config.limit_per_prompt
        }
    return arguments | checked(config.small_args)


def _readable_backend() -> str | None:
    """The attention backend to name where vLLM would come to FlashInfer, whose K cache the guide cannot read:
    its first choice on Blackwell, and what is left before Ampere, which FlashAttention asks for."""
    if not current_platform.is_cuda():
        return None
    if current_platform.is_device_capability_family(100):
        return "FLASH_ATTN"
    return None if current_platform.has_device_capability(80) else "TRITON_ATTN"


def checked(small_args: Mapping[str, Any]) -> dict[str, Any]:
    """The user's arguments, ``hf_overrides`` apart: those come before the choice of the model's class.

    Raises:
        ValueError: naming the argument, why it is not his to set, and what to do.
    """
    for name, why in _OURS.items():
        if name in small_args and not (name == _UTILIZATION and "device_ids" in small_args):
            raise ValueError(
                f"--sgl-small-args: {name} is set by the guide ({why}); received {small_args[name]!r}: "
                "drop it"
            )
    cache = small_args.get("kv_cache_dtype", "auto")
    if cache not in _READABLE_CACHES:
        raise ValueError(
            f"--sgl-small-args: expected a kv_cache_dtype of {' or '.join(_READABLE_CACHES)}, because the "
            f"guide reads K; received {cache!r}: drop it"
        )
    graphs = small_args.get("compilation_config")
    mode = graphs.get("cudagraph_mode", "PIECEWISE") if isinstance(graphs, Mapping) else "PIECEWISE"
    if mode not in _READABLE_GRAPHS:
        raise ValueError(
            f"--sgl-small-args: expected a cudagraph_mode of {' or '.join(_READABLE_GRAPHS)}, because a "
            f"fully captured graph leaves out the guide; received {mode!r}: drop it"
        )
    arguments = {name: value for name, value in small_args.items() if name != "hf_overrides"}
    if isinstance(graphs, Mapping):
        arguments["compilation_config"] = {**graphs, "cudagraph_mode": mode}
    return arguments


def is_recurrent(text: Any) -> bool:
    """Whether layers of a decoder carry a state from token to token, as those of gated delta nets.

    Args:
        text: the decoder's config.
    """
    return "linear_attention" in (getattr(text, "layer_types", None) or ())


def tensor_parallel(size: int, text: Any) -> int:
    """The large engine's tensor parallel size, or its largest divisor that the small model's heads allow.

    Args:
        text: the config of the small model's decoder.
    """
    heads = text.num_attention_heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    states = [getattr(text, name, None) or heads for name in _STATE_HEADS] if is_recurrent(text) else []
    # As vLLM shares them out: KV heads are split over ranks, or each is copied to several.
    fitting = (
        ranks
        for ranks in range(size, 0, -1)
        if size % ranks == 0
        and all(count % ranks == 0 for count in (heads, *states))
        and (groups % ranks == 0 or ranks % groups == 0)
    )
    most = next(fitting)
    if most < size:
        logger.warning(
            "SGL: the small engine runs with a tensor parallel size of %d, not %d: its model has %d "
            "attention heads and %d KV heads",
            most, size, heads, groups,
        )  # fmt: skip
    return most
