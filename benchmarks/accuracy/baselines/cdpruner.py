"""CDPruner: a set of visual tokens that is diverse, where the question makes it matter.

"Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs" (arXiv
2506.10967): with L the cosine similarity of the visual tokens and r their relevance to the question, keep the
set S that maximises the determinant of (diag(r) L diag(r))[S, S], a determinantal point process. With r = 1
everywhere it is diversity alone: the method "dpp", because r is a substitute here (:func:`relevance`).
"""

import torch
from torch.nn import functional

from tools.reference import Reference

#: Below this share of a token's own variance, what the chosen ones leave of it is rounding.
_ROUNDING = 1e-10


def relevance(visual: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """How much each visual token has to do with the question, float64 [tokens], from 0 to 1.

    Cosine similarity to each token of the question, averaged over them, and stretched from 0 to 1 over the
    visual tokens.

    **A substitute.** The paper takes it between the image and text embeddings of the CLIP model whose encoder
    the large model has. InternVL's encoder has no text tower; so both sides are taken from where the large
    model itself lets them meet: visual tokens behind the connector, words as the decoder embeds them.

    Args:
        visual: visual tokens as the decoder is given them, float [tokens, hidden].
        text: embeddings of the question's tokens, float [words, hidden].
    """
    visual, text = (functional.normalize(part.double(), dim=1) for part in (visual, text))
    mean = (visual @ text.T).mean(1)
    spread = mean.max() - mean.min()
    return (mean - mean.min()) / spread if spread > 0 else torch.ones_like(mean)


def order(features: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
    """All tokens in the order in which they join the set, int64 [tokens]: the first k are the set of k.

    Greedy: always the token that makes the determinant largest. With the rows of a Cholesky factor kept, a
    token's gain is what is left of its variance ("Fast Greedy MAP Inference for Determinantal Point Process",
    arXiv 1709.05135, algorithm 1). Where nothing is left of any, the most relevant token is next; ties go to
    the lower index.

    Args:
        features: what the vision encoder says of the tokens, float [tokens, width].
        relevance: from 0 to 1, [tokens].
    """
    unit = functional.normalize(features.double(), dim=1) * relevance.double()[:, None]
    kernel = unit @ unit.T
    left = kernel.diagonal().clone()
    floor = _ROUNDING * left.max()
    factor = kernel.new_zeros(len(kernel), len(kernel))
    free = torch.ones(len(kernel), dtype=torch.bool)
    chosen: list[int] = []
    while len(chosen) < len(kernel):
        gains = left if (left[free] > floor).any() else relevance.double()
        token = int(torch.where(free, gains, -float("inf")).argmax())
        step, free[token] = len(chosen), False
        chosen.append(token)
        if left[token] > floor:
            rows = factor[:, :step]
            factor[:, step] = (kernel[:, token] - rows @ rows[token]) / left[token].sqrt()
            left = left - factor[:, step] ** 2
    return torch.tensor(chosen)


@torch.inference_mode()
def encoder_features(reference: Reference, pixel_values: torch.Tensor) -> torch.Tensor:
    """What the connector reads of an image's tiles [tiles, 3, height, width]: the encoder's output, four
    patches to a visual token, float [tokens, 4 * width]."""
    model = reference.model.model
    patches = model.vision_tower(pixel_values.float()).last_hidden_state[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    grid = model.pixel_shuffle(patches.unflatten(1, (side, side)), scale_factor=0.5)
    return grid.flatten(0, 2)


@torch.inference_mode()
def text_features(reference: Reference, question: str) -> torch.Tensor:
    """The question's tokens as the decoder embeds them, float [words, hidden]."""
    ids = reference.tokenizer(question, add_special_tokens=False).input_ids
    return reference.model.get_input_embeddings()(torch.tensor(ids))
