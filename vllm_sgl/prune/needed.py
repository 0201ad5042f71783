"""Which visual tokens of known images a new question needs, and which of them are missing."""

from collections.abc import Sequence

import torch

from vllm_sgl.core import Kept, Late, Seen
from vllm_sgl.prune.registry import policy
from vllm_sgl.prune.threads import one_thread

#: Of all visual tokens of known images, the share that a question is taken to need.
NEEDED = 0.09
#: Nothing is added where what is there holds so much of the needed tokens' importance.
COVERED = 0.95


@one_thread()
def late_tokens(
    seen: Sequence[Seen], kept: Kept, before: Sequence[Late], at: int, retention: float
) -> tuple[Late, ...]:
    """What a question needs of known images and is not there.

    Args:
        seen: the known items, by what the guide saw for this question.
        kept: indices of each that the large model was given. before: what earlier turns added to these.
        at: where they are to stand in the unpruned prompt.
        retention: the request's own; a question needs no more.
    """
    needed = policy("top").select(seen, min(NEEDED, retention))
    missing, mass, total = [], 0.0, 0.0
    for number, (item, indices) in enumerate(zip(seen, needed, strict=True)):
        there = torch.zeros(item.item.visual_tokens, dtype=torch.bool)
        for known in (kept[number], *(late.indices for late in before if late.number == number)):
            there[known] = True
        missing.append(indices[~there[indices]])
        mass += float(item.importance[missing[-1]].sum())
        total += float(item.importance[indices].sum())
    if mass <= (1 - COVERED) * total:
        return ()
    return tuple(Late(number, at, indices) for number, indices in enumerate(missing) if len(indices))
