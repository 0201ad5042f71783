"""The small model's guide as a server asks it: admitted, cut off while it is silent, revived when it dies,
and asked in its own tokens."""

from dataclasses import dataclass
from typing import Any

from vllm.config import VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.small import SmallEngines
from vllm_sgl.guide.admission import Admission
from vllm_sgl.guide.base import Guide
from vllm_sgl.guide.breaker import Breaker
from vllm_sgl.guide.local.guide import LocalGuide
from vllm_sgl.guide.revived import Revived
from vllm_sgl.guide.translated import Translated
from vllm_sgl.guide.vocabulary import LargeVocabulary
from vllm_sgl.host.pair import Verdict
from vllm_sgl.host.rendering import remember_conversations, renderer_of


@dataclass(frozen=True)
class StartedGuide:
    """guide: takes the small model's prompts. pair: what the large model's are to it. config: of the small
    engine."""

    guide: Guide
    pair: Verdict
    config: VllmConfig


def start_guide(large: VllmConfig, config: SGLConfig, patient: bool) -> StartedGuide:
    """Start the small engine; blocks until its model is loaded. Shares the device's memory out in both
    engines' configs.

    Args:
        patient: requests wait for the guide as long as it answers at all, as suits a job whose requests all
            come at once.

    Raises:
        ValueError: for a pair that cannot work together, or that does not fit the device.
    """
    engines = SmallEngines(large, config)

    def make() -> LocalGuide:
        return LocalGuide(engines.start(), config.guide_timeout, patient)

    first = make()
    revived = Revived(first, make)
    guide = Breaker(Admission(revived, first.capacity, patient=patient), revived.probe)
    return StartedGuide(guide, engines.pair, engines.config)


def guide_over(guide: Guide, pair: Verdict, small: VllmConfig, large: Any) -> Guide:
    """The guide that takes the large model's prompts.

    Args:
        guide: takes the small model's.
        small: the small engine's config.
        large: the large engine's renderer, which remembers conversations from here on where they are needed.
    """
    if pair.way == "shared":
        return guide
    remember_conversations(large)
    vocabulary = None
    if not pair.same_tokens:
        vocabulary = LargeVocabulary(large.get_tokenizer(), large.get_eos_token_id())
    # A renderer of its own, not the small engine's: that one goes when the engine dies.
    return Translated(guide, renderer_of(small), large, vocabulary)
