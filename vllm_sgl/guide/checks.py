"""Checks of what a guide gives, whoever wrote it."""

import math

from vllm_sgl.core import GuideRequest, GuideResult, Reason
from vllm_sgl.errors import GuideError


def check_result(request: GuideRequest, result: GuideResult) -> None:
    """A mask of what is no number would be a wrong one, and no client could read the report.

    Raises:
        GuideError: where importance does not fit the request, or anything is not finite.
    """
    for item, importance in zip(request.items, result.importance, strict=True):
        if len(importance) != item.visual_tokens or not importance.isfinite().all():
            raise GuideError(
                Reason.GUIDE_FAILED,
                f"expected the importance of {item.visual_tokens} visual tokens, finite numbers; received "
                f"{len(importance)}, {int(importance.isfinite().sum())} of them finite",
            )
    if not all(map(math.isfinite, result.answer.logprobs)):
        raise GuideError(
            Reason.GUIDE_FAILED,
            f"expected finite log-probabilities of the answer, received {list(result.answer.logprobs)}",
        )


def finite(name: str, value: float) -> float:
    """The value.

    Raises:
        GuideError: where it is no number, which no client could read.
    """
    if not math.isfinite(value):
        raise GuideError(Reason.GUIDE_FAILED, f"expected a finite {name}, received {value}")
    return value
