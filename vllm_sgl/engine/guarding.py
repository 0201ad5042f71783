"""The small model's guide as a server asks it: admitted, cut off while it is silent, revived when it dies."""

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.small import SmallEngines
from vllm_sgl.guide.admission import Admission
from vllm_sgl.guide.base import Guide
from vllm_sgl.guide.breaker import Breaker
from vllm_sgl.guide.local.guide import LocalGuide
from vllm_sgl.guide.revived import Revived


def start_guide(engines: SmallEngines, config: SGLConfig, patient: bool) -> Guide:
    """Start the small engine; blocks until its model is loaded.

    Args:
        patient: requests wait for the guide as long as it answers at all, as suits a job whose requests all
            come at once.
    """

    def make() -> LocalGuide:
        return LocalGuide(engines.start(), config.guide_timeout, patient)

    first = make()
    revived = Revived(first, make)
    return Breaker(Admission(revived, first.capacity, patient=patient), revived.probe)
