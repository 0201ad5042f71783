"""ToMe: alike visual tokens are merged, layer by layer, inside the vision encoder.

"Token Merging: Your ViT But Faster" (arXiv 2210.09461) merges patches between attention and MLP of every
layer: bipartite soft matching of their keys, averages weighted by how many patches stand in a token, and
attention that counts a merged token as often. All of that is done here, in transformers' InternViT, float32,
eager attention, but for one thing: **what is merged is a visual token's cell of 2 x 2 patches**, because
InternVL's pixel shuffle makes one visual token of four neighbours and needs all four. A cell's key is its
patches' keys, averaged over heads, side by side; two cells merge patch by patch. So the encoder saves work as
ToMe means it to, and the decoder is given as many tokens as cells are left.

Every tile is encoded alone, so tiles share evenly what is to be kept, one token at least in each. A merged
token has the position of the one that others were merged into. vLLM's engine is given pixels and cannot take
such tokens: answers come from transformers (:func:`generate`).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from tools.reference import Generated, Reference


def shares(kept: int, tiles: int) -> list[int]:
    """Tokens to keep in each tile, one at least; the first ones have one more where it does not divide."""
    each, more = divmod(max(kept, tiles), tiles)
    return [each + (tile < more) for tile in range(tiles)]


def schedule(cells: int, kept: int, layers: int) -> list[int]:
    """How many cells each layer merges away: as evenly as can be, at most half of those that are left.

    Raises:
        ValueError: where even halving in every layer leaves more than ``kept``.
    """
    plan, left = [], cells
    for later in reversed(range(layers)):
        even = -(-(left - kept) // (later + 1))
        needed = left - kept * 2**later  # else the later layers could not halve it down
        plan.append(max(even, needed))
        if plan[-1] > left // 2:
            raise ValueError(f"{layers} layers cannot merge {cells} tokens into {kept}: each halves at most")
        left -= plan[-1]
    return plan


def match(keys: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bipartite soft matching: (source, target), int64 [..., count] each, the tokens that are merged away and
    those that they are merged into.

    Every second token, from the first, may be merged away, each into the token of the other half that is most
    alike (cosine similarity); the ``count`` most alike pairs are merged. Ties go to the lower index.

    Args:
        keys: float [..., tokens, width].
        count: at most half of the tokens.
    """
    unit = functional.normalize(keys, dim=-1)
    alike, nearest = (unit[..., ::2, :] @ unit[..., 1::2, :].transpose(-1, -2)).max(-1)
    source = alike.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return 2 * source, 2 * nearest.gather(-1, source) + 1


def merge(
    values: torch.Tensor, sizes: torch.Tensor, source: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Averages weighted by sizes: (values, sizes, indices of the tokens that are left), in their order.

    Args:
        values: float [tiles, tokens, width]. sizes: float [tiles, tokens].
        source, target: as :func:`match` gives them, [tiles, count].
    """
    stays = torch.ones_like(sizes, dtype=torch.bool).scatter(1, source, False)
    weighted, across = values * sizes[..., None], target[..., None].expand(-1, -1, values.shape[-1])
    moved = weighted.gather(1, source[..., None].expand_as(across))
    weighted = weighted.scatter_add(1, across, moved)
    summed = sizes.scatter_add(1, target, sizes.gather(1, source))
    left = stays.nonzero()[:, 1].view(len(stays), -1)
    averaged = (weighted / summed[..., None]).gather(1, left[..., None].expand(-1, -1, values.shape[-1]))
    return averaged, summed.gather(1, left), left


@torch.inference_mode()
def encode(reference: Reference, pixel_values: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Visual tokens of tiles of which each keeps as many: float [tiles, kept, hidden], and their places among
    the tile's own, int64 [tiles, kept], ascending.

    Args:
        pixel_values: [tiles, 3, height, width].
    """
    tower = reference.model.model.vision_tower
    hidden = tower.embeddings(pixel_values.float())
    cells = _cells(hidden.shape[1] - 1)
    class_token, patches = hidden[:, :1], hidden[:, 1:][:, cells.flatten()]
    width, tiles = hidden.shape[-1], len(hidden)
    values = patches.view(tiles, len(cells), 4 * width)
    sizes = values.new_ones(tiles, len(cells))
    places = torch.arange(len(cells)).expand(tiles, -1)
    layers = tower.encoder.layer
    for layer, count in zip(layers, schedule(len(cells), kept, len(layers)), strict=True):
        hidden = torch.cat([class_token, values.view(tiles, -1, width)], dim=1)
        normed = layer.layernorm_before(hidden)
        as_often = torch.cat([sizes.new_ones(tiles, 1), sizes.repeat_interleave(4, 1)], dim=1).log()
        attended, _ = layer.attention(normed, attention_mask=as_often[:, None, None])
        hidden = hidden + layer.lambda_1 * attended
        class_token, values = hidden[:, :1], hidden[:, 1:].reshape(tiles, -1, 4 * width)
        if count:
            pairs = match(_keys(layer.attention, normed), count)
            values, sizes, left = merge(values, sizes, *pairs)
            places = places.gather(1, left)
        hidden = torch.cat([class_token, values.view(tiles, -1, width)], dim=1)
        hidden = hidden + layer.lambda_2 * layer.mlp(layer.layernorm_after(hidden))
        class_token, values = hidden[:, :1], hidden[:, 1:].reshape(tiles, -1, 4 * width)
    finished = tower.layernorm(values.view(tiles, -1, width)).view_as(values)
    return reference.model.model.multi_modal_projector(finished), places


def _cells(patches: int) -> torch.Tensor:
    """The four patches of each visual token in the order of the pixel shuffle, int64 [cells, 4]."""
    side = round(patches**0.5)
    number = torch.arange(patches).view(side // 2, 2, side // 2, 2)
    return number.permute(0, 2, 1, 3).reshape(-1, 4)


def _keys(attention: nn.Module, normed: torch.Tensor) -> torch.Tensor:
    """Of each cell, [tiles, cells, 4 * head]: its patches' keys, averaged over heads. normed: attention's
    input, the class token first."""
    keys = attention.k_norm(attention.k_proj(normed[:, 1:]))
    return keys.unflatten(-1, (attention.num_heads, -1)).mean(-2).unflatten(1, (-1, 4)).flatten(2)


@torch.inference_mode()
def generate(
    reference: Reference,
    prompt_token_ids: Sequence[int],
    pixel_values: Sequence[torch.Tensor],
    kept: int,
    max_new_tokens: int,
) -> Generated:
    """Greedy answer of the model that is given ``kept`` merged visual tokens in all, but one of a tile at
    least; at their original positions."""
    targets = iter(shares(kept, sum(map(len, pixel_values))))
    features, keep = [], []
    for pixels in pixel_values:
        encoded = [encode(reference, tile[None], next(targets)) for tile in pixels]
        per_tile = len(_cells((pixels.shape[-1] // reference.model.config.vision_config.patch_size[0]) ** 2))
        features.append(torch.cat([tokens[0] for tokens, _ in encoded]))
        keep.append(torch.cat([places[0] + n * per_tile for n, (_, places) in enumerate(encoded)]))
    prompt = reference._prompt(prompt_token_ids, pixel_values, keep, "original")
    for rows, tokens in zip(prompt.visual_rows, features, strict=True):
        prompt.embeddings[rows] = tokens
    tokens: list[int] = []
    logprobs = []
    while len(tokens) < max_new_tokens and (not tokens or tokens[-1] != reference.eos_token_id):
        row = reference._forward(prompt, tokens)[0][-1].log_softmax(-1)
        tokens.append(int(row.argmax()))
        logprobs.append(row[tokens[-1]])
    return Generated(tokens, torch.stack(logprobs))
