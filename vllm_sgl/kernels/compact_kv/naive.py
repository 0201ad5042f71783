"""Plain torch reference."""

import torch


def compact_kv(
    kv_cache: torch.Tensor,
    source: torch.Tensor,
    destination: torch.Tensor,
    out: torch.Tensor | None = None,
) -> None:
    """Copy retained tokens' K and V from their slots of a paged cache into other slots.

        out[slot destination[i]] = kv_cache[slot source[i]]    for all i at once

    Slot s of a cache is offset s % block_size of block s // block_size. Keys keep the rotation of the
    position that they were computed at: moving a token does not change its position id.

    Args:
        kv_cache: [blocks, kv_heads, block_size, width], any strides. FlashAttention and Triton backends
            of vLLM store K and V side by side, width = 2 * head_dim. A layout that stores them otherwise
            (vLLM's CPU backend) is moved in two calls, on a view of its K and one of its V.
        source: [n] int, slots to read; -1 skips the entry (vLLM's padding slot).
        destination: [n] int, slots to write, all different; -1 skips the entry.
        out: cache to write, same dtype, kv_heads and width, own block size. Default: ``kv_cache`` itself.
            All reads come before the first write, so the two sets of slots may overlap.

    Raises:
        ValueError: caches or slot mappings that do not fit each other, or two different views of one
            memory as ``kv_cache`` and ``out``.
    """
    out = kv_cache if out is None else out
    check(kv_cache, source, destination, out)
    used = (source >= 0) & (destination >= 0)
    source, destination = source[used].long(), destination[used].long()
    from_size, to_size = kv_cache.shape[2], out.shape[2]
    # Advanced indexing copies: the reads are done before the writes begin.
    tokens = kv_cache[source // from_size, :, source % from_size]
    out[destination // to_size, :, destination % to_size] = tokens


def check(kv_cache, source, destination, out) -> None:
    """Shared with the kernel."""
    if kv_cache.dim() != 4 or out.dim() != 4 or kv_cache.shape[1::2] != out.shape[1::2]:
        raise ValueError(
            "expected caches [blocks, kv_heads, block_size, width] with equal kv_heads and width; received "
            f"{tuple(kv_cache.shape)} and {tuple(out.shape)}"
        )
    if kv_cache.dtype != out.dtype or kv_cache.device != out.device:
        raise ValueError(
            f"expected caches of one dtype on one device; received {kv_cache.dtype} on {kv_cache.device} "
            f"and {out.dtype} on {out.device}"
        )
    if source.dim() != 1 or source.shape != destination.shape:
        raise ValueError(
            "expected slot mappings of equal length; received "
            f"source {tuple(source.shape)}, destination {tuple(destination.shape)}"
        )
    if shares_memory(kv_cache, out) and not is_same(kv_cache, out):
        raise ValueError(
            "kv_cache and out are different views of one memory, so a slot of one may lie under another "
            "slot of the other; pass the same view as both, or caches of their own"
        )


def shares_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and a.numel() > 0


def is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
