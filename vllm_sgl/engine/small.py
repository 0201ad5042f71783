"""Starting the small engine beside a large one."""

from copy import deepcopy

from vllm.config import VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.families import family_of
from vllm_sgl.families.variant import UseVariant
from vllm_sgl.guide.local.worker import GuideWorkerExtension
from vllm_sgl.host import memory, small_engine
from vllm_sgl.host.async_llm import AsyncLLM
from vllm_sgl.host.pair import check_pair

_EXTENSION = f"{GuideWorkerExtension.__module__}.{GuideWorkerExtension.__qualname__}"


def small_config(large: VllmConfig, config: SGLConfig) -> VllmConfig:
    """The small engine's config, with the small model's variant and our ears in its workers.

    Raises:
        ValueError: where the small model is missing or is no supported vision-language model.
    """
    variant = UseVariant(config.positions, then=config.small_args.get("hf_overrides"))
    return small_engine.small_config(large, config, variant, _EXTENSION)


class SmallEngines:
    """Starts the small engine beside a large one, and again after its death, in the memory it had.

    Shares the device's memory out in both configs.

    Raises:
        ValueError: for a pair that cannot work together, or that does not fit the device.
    """

    def __init__(self, large: VllmConfig, config: SGLConfig) -> None:
        small = small_config(large, config)
        models = large.model_config, small.model_config
        check_pair(*models, *(family_of(model).vision_facts(model) for model in models))
        _refuse_small_context(small)
        fixed_kv = config.small_args.get("kv_cache_memory_bytes")
        memory.apply(memory.plan(large, small, config.small_memory, fixed_kv), large, small)
        self._config = small
        self._blocks: int | None = None

    def start(self) -> AsyncLLM:
        """Blocks until the model is loaded. Before the large engine's first start, so that that one measures
        what is left of the device."""
        config = deepcopy(self._config)  # an engine writes into its own
        if self._blocks is not None:
            # Beside the large engine, vLLM would measure another size than when the small one was alone.
            config.cache_config.num_gpu_blocks_override = self._blocks
        engine = small_engine.start_small(config)
        self._blocks = config.cache_config.num_gpu_blocks
        return engine


#: Width and height of the smallest image that a context must have room for.
_ICON = 32, 32


def _refuse_small_context(small: VllmConfig) -> None:
    """A guide that can never take an image would be started for nothing."""
    model = small.model_config
    least = family_of(model).layout_of(model)(*_ICON).visual_tokens
    if least + 2 > model.max_model_len:
        raise ValueError(
            f"--sgl-small {model.model}: its context of {model.max_model_len} tokens has no room for an "
            f"image, whose visual tokens are {least} or more: give a larger max_model_len in "
            "--sgl-small-args, or another model"
        )
