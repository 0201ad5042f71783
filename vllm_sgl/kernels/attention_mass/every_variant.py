"""Running every variant of the kernels once, so that none is compiled in the middle of serving."""

import torch

from . import decode, rows
from .tiles import SPLIT_CHOICES


def run_every_variant(key_cache: torch.Tensor, heads: int, lanes: int) -> None:
    """Launch each variant that some batch of a layer can need, on two tiny requests.

    A variant is what Triton compiles by itself: which of ``rows.py`` and ``decode.py`` runs, into how many
    pieces sequences are cut, and the types and strides of the layer. Everything else that changes from
    batch to batch is no reason to compile (``tests/kernels/variants.py`` counts).

    Args:
        key_cache: [blocks, kv_heads, block_size, head_dim], the layer's own; read, whatever it holds.
        heads: query heads of the layer.
        lanes: of the ``mass`` that batches will be given.
    """
    # Real queries often lie inside a fused qkv projection. Its rows are longer by a multiple of 16 elements
    # (2 x kv_heads x head_dim), which is all that Triton asks of a stride.
    query = key_cache.new_zeros(4, heads, key_cache.shape[3])
    for splits in SPLIT_CHOICES:
        rows.launch(*_tiny_batch(query, key_cache, lanes), 2, splits=splits)
        decode.launch(*_tiny_batch(query, key_cache, lanes), splits=splits)


def _tiny_batch(query: torch.Tensor, key_cache: torch.Tensor, lanes: int) -> tuple:
    """Arguments of a launch, typed as vLLM and the guide hand them over: two requests of two rows each, all
    keys in block 0."""
    device = query.device

    def integers(*values: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return (
        query,
        key_cache,
        integers(0, 0, 0, 0, dtype=torch.int32).view(2, 2),  # block_table
        integers(2, 2, dtype=torch.int32),  # seq_lens
        integers(0, 2, 4, dtype=torch.int32),  # query_start_loc
        integers(0, 1, dtype=torch.int64),  # first_row
        integers(0, 1, 0, dtype=torch.int64),  # index
        integers(0, 2, 3, dtype=torch.int64),  # index_start_loc
        1.0,  # scale
        torch.zeros(lanes, 3, device=device),  # mass
        torch.zeros(2, dtype=torch.float64, device=device),  # total
    )
