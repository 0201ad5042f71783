"""The small model's guide as a server asks it: admitted, cut off while it is silent, revived when it dies."""

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.refusals import starting_small
from vllm_sgl.engine.start import SmallEngines
from vllm_sgl.guide.base import Guide
from vllm_sgl.guide.guards.admission import Admission
from vllm_sgl.guide.guards.breaker import Breaker
from vllm_sgl.guide.guards.restart import Revived
from vllm_sgl.guide.local.guide import LocalGuide


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


def guarded(guide: Guide, small: Revived[LocalGuide], patient: bool) -> Guide:
    """What requests are to ask in place of a guide around the small one. Who is turned away is so at once,
    before that guide has done any work for the request, such as rendering it a second time.

    Args:
        guide: over ``small``, or that one itself.
        patient: requests wait for a place however long it takes, as suits a job whose requests all come at
            once.
    """
    return Breaker(Admission(guide, small.guide.capacity, patient=patient), small.probe)
