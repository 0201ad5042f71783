"""The small model's guide as a server asks it: admitted, cut off while it is silent, revived when it dies."""

from typing import Any

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.refusals import starting_small
from vllm_sgl.engine.start import SmallEngines, guide_over
from vllm_sgl.guide.base import Guide
from vllm_sgl.guide.guards.admission import Admission
from vllm_sgl.guide.guards.breaker import Breaker
from vllm_sgl.guide.guards.restart import Revived
from vllm_sgl.guide.local.guide import LocalGuide
from vllm_sgl.guide.remembered import Remembered


def start_guide(engines: SmallEngines, config: SGLConfig, patient: bool) -> Revived[LocalGuide]:
    """Start the small engine; blocks until its model is loaded.

    Args:
        patient: a slow pass is waited for, as :class:`vllm_sgl.guide.local.passes.Passes` does.

    Raises:
        StartRefused: where the engine's processes do not start.
    """

    def make() -> LocalGuide:
        with starting_small(config.small):
            return LocalGuide(engines.start(), config.guide_timeout, patient)

    return Revived(make(), make, engines.give_up)


def guide_of(
    started: Revived[LocalGuide], engines: SmallEngines, large: Any, config: SGLConfig, patient: bool
) -> Guide:
    """What requests ask: the small engine's guide, with its guards, its memory, and in the large model's
    tokens.

    Args:
        large: the large model's renderer (``AsyncLLM.renderer``).
    """
    if engines.verdict.way == "shared":
        return remembering(guarded(started, started, patient), config)
    # Beneath the guards: what is the same is the prompt that the small model is given.
    local = remembering(started, config)
    return guarded(guide_over(local, engines.verdict, engines.config, large), started, patient)


def remembering(guide: Guide, config: SGLConfig) -> Guide:
    """A guide that is not asked the same twice, unless the user does without."""
    return Remembered(guide, config.guide_memory) if config.guide_memory else guide


def guarded(guide: Guide, small: Revived[LocalGuide], patient: bool) -> Guide:
    """What requests are to ask in place of a guide around the small one. Who is turned away is so at once,
    before that guide has done any work for the request, such as rendering it a second time.

    Args:
        guide: over ``small``, or that one itself.
        patient: requests wait for a place however long it takes, as suits a job whose requests all come at
            once.
    """
    return Breaker(Admission(guide, small.guide.capacity, patient=patient), small.probe)
