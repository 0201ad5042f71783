"""FastV's ranking of visual tokens, computed outside of vLLM."""

from collections.abc import Sequence

import torch

from tools.reference import Reference


@torch.inference_mode()
def importance(
    reference: Reference,
    prompt_token_ids: Sequence[int],
    pixel_values: Sequence[torch.Tensor],
    layer: int = 2,
) -> list[torch.Tensor]:
    """Per image, the attention that its visual tokens [n] receive from the last prompt token in one decoder
    layer (counted from 1), averaged over the heads; float32.

    Formula: "An Image is Worth 1/2 Tokens After Layer 2" (arXiv 2403.06764) with K = 2; its text averages
    over all queries, its released code takes the last one, and so does this. FastV drops the tokens after
    that layer; where they are dropped is up to the caller.
    """
    prompt = reference._prompt(prompt_token_ids, pixel_values, None, "original")
    _, attentions = reference._forward(prompt, [], attention=True)
    received = attentions[layer - 1][0, :, -1].mean(0)
    return [received[rows] for rows in prompt.visual_rows]
