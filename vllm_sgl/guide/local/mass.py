"""Computes importance from the workers' records, and checks the total attention mass."""

from collections.abc import Sequence
from typing import TypedDict

import torch

from vllm_sgl.core import Reason
from vllm_sgl.errors import GuideError

#: Relative error allowed in total attention mass: probabilities are summed in float32.
MASS_TOLERANCE = 1e-3


class Recorded(TypedDict):
    """One worker's record of a request. mass: float32 bytes [visual tokens]; rows: query rows counted;
    total: attention mass over all keys."""

    mass: bytes
    rows: int
    total: float


def importance(
    recorded: Sequence[Recorded | None], rows: int, heads: int, visual_tokens: Sequence[int]
) -> list[torch.Tensor]:
    """Sum over workers (each has a shard of the heads or layers).

    Every row of a softmax sums to one, so the total is known beforehand: rows x layers x heads.

    Args:
        rows: query rows that had to be counted.
        heads: layers x heads over all workers.
        visual_tokens: of each item.

    Returns:
        one float32 tensor [visual tokens] per item.

    Raises:
        GuideError: where the total is another one, or none at all, as where the model overflows.
    """
    seen = [entry for entry in recorded if entry is not None]
    total, expected = sum(entry["total"] for entry in seen), rows * heads
    if not abs(total - expected) <= MASS_TOLERANCE * expected:  # nor is NaN
        counted = [entry["rows"] for entry in seen]
        raise GuideError(
            Reason.GUIDE_FAILED,
            f"attention capture is incomplete: total mass {total:.3f}, expected {expected} ({rows} query "
            f"rows x {heads} layers and heads; workers counted {counted} rows). A fully "
            "captured CUDA graph or a prefix-cache hit in the small engine would do this; a total of nan, a "
            'small model that overflows in its dtype (--sgl-small-args \'{"dtype": "bfloat16"}\')',
        )
    mass = torch.zeros(sum(visual_tokens), dtype=torch.float32)
    for entry in seen:
        mass += torch.frombuffer(bytearray(entry["mass"]), dtype=torch.float32)
    return list(mass.split(list(visual_tokens)))
