"""Starting the small engine beside a large one."""

from vllm.config import VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.sharing import share_memory
from vllm_sgl.families import family_of
from vllm_sgl.families.variant import UseVariant
from vllm_sgl.guide.local.worker import GuideWorkerExtension
from vllm_sgl.host import small_engine
from vllm_sgl.host.async_llm import AsyncLLM
from vllm_sgl.host.pair import check_pair

_EXTENSION = f"{GuideWorkerExtension.__module__}.{GuideWorkerExtension.__qualname__}"


def small_config(large: VllmConfig, config: SGLConfig) -> VllmConfig:
    """The small engine's config, with the small model's variant and our ears in its workers.

    Raises:
        ValueError: where the small model is missing or is no supported vision-language model.
    """
    return small_engine.small_config(large, config, UseVariant(config.positions), _EXTENSION)


def start_small(large: VllmConfig, config: SGLConfig) -> AsyncLLM:
    """Start the small engine, so that the large one measures what is left of the device. Shares the device's
    memory out in both configs; blocks until the model is loaded.

    Raises:
        ValueError: for a pair that cannot work together, or that does not fit the device.
    """
    small = small_config(large, config)
    models = large.model_config, small.model_config
    check_pair(*models, *(family_of(model).vision_facts(model) for model in models))
    share_memory(large, small, config)
    return small_engine.start_small(small)
