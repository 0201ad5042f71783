"""Starting the small engine beside a large one, as the guide that the pair needs."""

import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from multiprocessing import active_children
from typing import Any

from vllm.config import ModelConfig, VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.sharing import share_memory
from vllm_sgl.families import family_of, known_architecture
from vllm_sgl.families.base import NO_SETTINGS
from vllm_sgl.families.variant import UseVariant
from vllm_sgl.guide.base import Guide
from vllm_sgl.guide.local.worker import GuideWorkerExtension
from vllm_sgl.guide.views.crossed import Crossed
from vllm_sgl.guide.views.translated import Translated
from vllm_sgl.guide.views.vocabulary import LargeVocabulary
from vllm_sgl.host.render.conversation import remember_conversations, renderer_of
from vllm_sgl.host.start import small_engine
from vllm_sgl.host.start.async_llm import AsyncLLM
from vllm_sgl.pair.layout_check import why_unknown
from vllm_sgl.pair.verdict import FORMAT, ModelFacts, Verdict, check_pair, read_facts
from vllm_sgl.request.facts import FactsReader
from vllm_sgl.visual.layout import LayoutOf
from vllm_sgl.visual.transfer import TransferOf, transfers

logger = logging.getLogger("vllm.vllm_sgl.engine")

_EXTENSION = f"{GuideWorkerExtension.__module__}.{GuideWorkerExtension.__qualname__}"


def small_config(large: VllmConfig, config: SGLConfig) -> VllmConfig:
    """The small engine's config, with the small model's variant and our ears in its workers.

    Raises:
        ValueError: where the small model is missing or is no supported vision-language model.
    """
    variant = UseVariant(config.positions, then=config.small_args.get("hf_overrides"))
    small = small_engine.small_config(large, config, variant, _EXTENSION)
    try:
        family_of(small.model_config)
    except ValueError as error:
        raise ValueError(f"--sgl-small {config.small}: {error}") from error
    return small


def judge(large: ModelConfig, small: ModelConfig) -> Verdict:
    """Whether and how one model can guide another, by their files alone.

    Raises:
        ValueError: where a model's files cannot be read.
    """
    facts = _facts("the large model", large), _facts("the small model (--sgl-small)", small)
    verdict = check_pair(*facts)
    if verdict.way != "crossed":
        return verdict
    whys = {model.model: why_unknown(model) for model in (large, small)}
    unknown = {name: why for name, why in whys.items() if why is not None}
    return replace(verdict, way="refused", unknown=unknown) if unknown else verdict


class SmallEngines:
    """Starts the small engine beside a large one, and again after its death, in the memory it had.

    Shares the device's memory out in both configs.

    config: the small engine's. verdict: how it guides.

    Raises:
        ValueError: for a pair that cannot work together, or that does not fit the device.
    """

    def __init__(self, large: VllmConfig, config: SGLConfig) -> None:
        small = small_config(large, config)
        self.verdict = judge(large.model_config, small.model_config)
        if self.verdict.way == "refused":
            raise ValueError(str(self.verdict))
        logger.info("SGL: %s", self.verdict)
        if self.verdict.way != "crossed" and config.views != SGLConfig.model_fields["views"].default:
            logger.warning(
                "SGL: --sgl-views %s has no effect: both models cut images alike, and the small model's own "
                "attention ranks thumbnails against grids", config.views,
            )  # fmt: skip
        _refuse_small_context(small)
        share_memory(large, small, config)
        self.config = small
        self._blocks: int | None = None
        self._others: set[int | None] | None = None  # processes that ran before the start that is under way

    def start(self) -> AsyncLLM:
        """Blocks until the model is loaded. Before the large engine's first start, so that that one measures
        what is left of the device."""
        config = deepcopy(self.config)  # an engine writes into its own
        if self._blocks is not None:
            # Beside the large engine, vLLM would measure another size than when the small one was alone.
            config.cache_config.num_gpu_blocks_override = self._blocks
        self._others = {child.pid for child in active_children()}
        try:
            engine = small_engine.start_small(config)
        finally:
            self._others = None
        self._blocks = config.cache_config.num_gpu_blocks
        return engine

    def give_up(self) -> None:
        """Kill the processes of an engine that another thread starts, if one does: one that loads its model
        would hear of its end seconds later, and the process that serves would wait for it."""
        if (others := self._others) is None:
            return
        for child in active_children():
            if child.pid not in others:
                child.kill()


#: Width and height of the smallest image that a context must have room for.
_ICON = 32, 32


def _refuse_small_context(small: VllmConfig) -> None:
    """A guide that can never take an image would be started for nothing."""
    model = small.model_config
    least = _layout_of(model)(*_ICON).visual_tokens
    if least + 2 > model.max_model_len:
        raise ValueError(
            f"--sgl-small {model.model}: its context of {model.max_model_len} tokens has no room for an "
            f"image, whose visual tokens are {least} or more: give a larger max_model_len in "
            "--sgl-small-args, or another model"
        )


def guide_over(local: Guide, verdict: Verdict, small: VllmConfig, large: Any) -> Guide:
    """The guide that takes the large model's requests.

    Args:
        local: takes the small model's.
        small: the small engine's config. large: the large model's renderer (``AsyncLLM.renderer``).
    """
    if verdict.way == "shared":
        return local
    remember_conversations(large)
    # Not the small engine's own, which ends with it: the engine may be started again.
    renderer = renderer_of(small)
    vocabulary = None
    if not verdict.same_tokens:
        vocabulary = LargeVocabulary(large.get_tokenizer(), large.get_eos_token_id())
    if verdict.way != "crossed":
        return Translated(local, renderer, large, vocabulary)
    config = SGLConfig.of(small.additional_config)
    assert config is not None, "a small engine without SGL settings"
    shared = FORMAT not in verdict.differences  # then settings of one processor are some of the other's
    translated = Translated(local, renderer, large, vocabulary, _reader(small.model_config).items, shared)

    def carrying(settings: Mapping[str, Any]) -> TransferOf:
        return transfers(
            _layout_of(small.model_config, settings if shared else NO_SETTINGS),
            _layout_of(large.model_config, settings),
        )

    return Crossed(translated, large.get_mm_processor(), carrying, config.views)


def _reader(model: ModelConfig) -> FactsReader:
    return FactsReader.of(family_of(model), model)


def _layout_of(model: ModelConfig, settings: Mapping[str, Any] = NO_SETTINGS) -> LayoutOf:
    return family_of(model).layout_of(model, settings)


def _facts(which: str, model: ModelConfig) -> ModelFacts:
    architecture = known_architecture(model.hf_config.architectures)
    assert architecture is not None, model.hf_config.architectures
    try:
        return read_facts(model, architecture, family_of(model).vision_facts(model))
    except (OSError, ValueError, TypeError, AttributeError) as error:  # as transformers happens to fail
        raise ValueError(
            f"{which} {model.model}: its tokenizer or image processor cannot be read ({error}): mend or "
            "fetch those files again, or choose another model"
        ) from error
