"""DivPrune: of all sets of visual tokens, one whose two most alike tokens are as far apart as can be."""

import torch
from torch.nn import functional


def order(features: torch.Tensor) -> torch.Tensor:
    """All tokens in the order in which they join the set, int64 [tokens]: the first k are the set of k.

    Greedy max-min distance, "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models"
    (arXiv 2503.02175), algorithm 1: first the token that is farthest from its nearest neighbour, then, again
    and again, the token that is farthest from the nearest of those chosen. Distance is 1 - cosine similarity.
    Ties go to the lower index.

    Args:
        features: visual tokens as the decoder is given them, float [tokens, width]; of all images together.
    """
    unit = functional.normalize(features.double(), dim=1)
    distance = 1 - unit @ unit.T
    alone = distance.clone().fill_diagonal_(float("inf"))
    nearest = alone.min(dim=1).values if len(features) > 1 else torch.zeros(1, dtype=torch.float64)
    chosen = [int(nearest.argmax())]
    nearest = distance[chosen[0]].clone()
    nearest[chosen[0]] = -float("inf")
    while len(chosen) < len(features):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distance[chosen[-1]])
        nearest[chosen[-1]] = -float("inf")
    return torch.tensor(chosen)
