"""Starting the small engine beside a large one, as the guide that the pair needs."""

import logging
from typing import Any

from vllm.config import ModelConfig, VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.families import family_of, known_architecture
from vllm_sgl.families.variant import UseVariant
from vllm_sgl.guide.base import Guide
from vllm_sgl.guide.local.worker import GuideWorkerExtension
from vllm_sgl.guide.translated import Translated
from vllm_sgl.guide.vocabulary import LargeVocabulary
from vllm_sgl.host import memory, small_engine
from vllm_sgl.host.async_llm import AsyncLLM
from vllm_sgl.host.pair import ModelFacts, Verdict, check_pair, read_facts
from vllm_sgl.host.rendering import remember_conversations

logger = logging.getLogger("vllm.vllm_sgl.engine")

_EXTENSION = f"{GuideWorkerExtension.__module__}.{GuideWorkerExtension.__qualname__}"


def small_config(large: VllmConfig, config: SGLConfig) -> VllmConfig:
    """The small engine's config, with the small model's variant and our ears in its workers.

    Raises:
        ValueError: where the small model is missing or is no supported vision-language model.
    """
    return small_engine.small_config(large, config, UseVariant(config.positions), _EXTENSION)


def judge(large: ModelConfig, small: ModelConfig) -> Verdict:
    """Whether and how one model can guide another, by their files alone."""
    return check_pair(_facts(large), _facts(small))


def start_small(large: VllmConfig, config: SGLConfig) -> tuple[AsyncLLM, Verdict]:
    """Start the small engine, so that the large one measures what is left of the device. Shares the device's
    memory out in both configs; blocks until the model is loaded.

    Returns:
        the engine, and how it guides.

    Raises:
        ValueError: for a pair that cannot work together, or that does not fit the device.
    """
    small = small_config(large, config)
    verdict = judge(large.model_config, small.model_config)
    if verdict.way == "refused":
        raise ValueError(str(verdict))
    logger.info("SGL: %s", verdict)
    fixed_kv = config.small_args.get("kv_cache_memory_bytes")
    memory.apply(memory.plan(large, small, config.small_memory, fixed_kv), large, small)
    return small_engine.start_small(small), verdict


def guide_over(local: Guide, verdict: Verdict, small: Any, large: Any) -> Guide:
    """The guide that takes the large model's requests.

    Args:
        local: takes the small model's.
        small, large: both models' renderers (``AsyncLLM.renderer``).
    """
    if verdict.way == "shared":
        return local
    remember_conversations(large)
    if verdict.same_tokens:
        return Translated(local, small, large, None)
    vocabulary = LargeVocabulary(large.get_tokenizer(), large.get_eos_token_id())
    return Translated(local, small, large, vocabulary)


def _facts(model: ModelConfig) -> ModelFacts:
    architecture = known_architecture(model.hf_config.architectures)
    assert architecture is not None, model.hf_config.architectures
    return read_facts(model, architecture, family_of(model).vision_facts(model))
