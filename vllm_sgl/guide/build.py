"""Putting a guide together: how the small model sees the large model's requests, and what guards them."""

from collections.abc import Mapping
from typing import Any

from vllm.config import ModelConfig, VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.families import family_of
from vllm_sgl.families.base import NO_SETTINGS
from vllm_sgl.guide.base import Guide
from vllm_sgl.guide.guards.admission import Admission
from vllm_sgl.guide.guards.breaker import Breaker
from vllm_sgl.guide.guards.restart import Revived
from vllm_sgl.guide.local.guide import LocalGuide
from vllm_sgl.guide.remembered import Remembered
from vllm_sgl.guide.views.crossed import Crossed
from vllm_sgl.guide.views.translated import Translated
from vllm_sgl.guide.views.vocabulary import LargeVocabulary
from vllm_sgl.host.render.conversation import remember_conversations, renderer_of
from vllm_sgl.pair.verdict import FORMAT, Verdict
from vllm_sgl.request.facts import FactsReader
from vllm_sgl.visual.layout import LayoutOf
from vllm_sgl.visual.transfer import TransferOf, transfers


def guide_of(
    started: Revived[LocalGuide], verdict: Verdict, small: VllmConfig, large: Any, patient: bool
) -> Guide:
    """The guide that requests use: the small engine's, with guards and memory, in the large model's tokens.

    Args:
        verdict, small, large: as :func:`guide_over` takes them. patient: as :func:`guarded`.
    """
    most = _settings(small).guide_memory

    def remembering(guide: Guide) -> Guide:
        return Remembered(guide, most) if most else guide

    if verdict.way == "shared":
        return remembering(guarded(guide_over(started, verdict, small, large), started, patient))
    # Below the guards and views: requests are equal if the small model's prompts are.
    return guarded(guide_over(remembering(started), verdict, small, large), started, patient)


def guide_over(local: Guide, verdict: Verdict, small: VllmConfig, large: Any) -> Guide:
    """The guide that takes the large model's requests.

    Args:
        local: takes the small model's.
        small: the small engine's config. large: the large model's renderer (``AsyncLLM.renderer``),
            whose prompts carry their conversations from now on.
    """
    remember_conversations(large)
    if verdict.way == "shared":
        return local
    # Not the small engine's own, which ends with it: the engine may be started again.
    renderer = renderer_of(small)
    vocabulary = None
    if not verdict.same_tokens:
        vocabulary = LargeVocabulary(large.get_tokenizer(), large.get_eos_token_id())
    if verdict.way != "crossed":
        return Translated(local, renderer, large, vocabulary)
    shared = FORMAT not in verdict.differences  # then settings of one processor are some of the other's
    translated = Translated(local, renderer, large, vocabulary, _reader(small.model_config).items, shared)

    def carrying(settings: Mapping[str, Any]) -> TransferOf:
        return transfers(
            _layout_of(small.model_config, settings if shared else NO_SETTINGS),
            _layout_of(large.model_config, settings),
        )

    return Crossed(translated, large.get_mm_processor(), carrying, _settings(small).views)


def guarded(guide: Guide, small: Revived[LocalGuide], patient: bool) -> Guide:
    """A guide with its guards: a request that is turned away costs the guide no work, such as rendering it a
    second time.

    Args:
        guide: over ``small``, or that one itself.
        patient: requests wait for a place however long it takes, as suits a job whose requests all come at
            once.
    """
    return Breaker(Admission(guide, small.guide.capacity, patient=patient), small.probe)


def _settings(small: VllmConfig) -> SGLConfig:
    config = SGLConfig.of(small.additional_config)
    assert config is not None, "a small engine without SGL settings"
    return config


def _reader(model: ModelConfig) -> FactsReader:
    return FactsReader.of(family_of(model), model)


def _layout_of(model: ModelConfig, settings: Mapping[str, Any] = NO_SETTINGS) -> LayoutOf:
    return family_of(model).layout_of(model, settings)
