"""Triton version for CUDA GPUs: same contract as ``naive``, without a host synchronisation.

Chosen, and why:

* Two launches per call, for the whole ragged batch. Grid sizes come from shapes and from ``max_rows``,
  scratch is ``torch.empty`` of a size known to the host: the call can be captured in a CUDA graph.
* ``rows.py`` for any number of counted rows, ``decode.py`` where ``max_rows`` is 1.
* No float atomics on ``mass``: each element has one owner, which loops over rows and heads in a fixed
  order, so equal inputs give equal bits and a mask does not depend on timing. To spread one request's
  heads over more programs, give ``mass`` several lanes and add them up once, after the last layer.
* ``total`` is added to by float64 atomics. The addends are sums of a few float32 values of like size,
  so that float64 holds their sum exactly and order does not matter in practice.
* ``total`` is a proof, not rows x heads computed in a roundabout way. In ``rows.py`` the log-sum-exp
  walks over positions, while the second kernel visits ``index`` and, separately, the keys that are not
  in it: ``total`` adds up what it found. It equals rows x heads only where each key that the
  log-sum-exp saw was visited once with the same score: a skipped launch, row or tile, a repeated or
  unsorted index all show. The other keys are usually the text, a few per cent of the work. In
  ``decode.py``, where K is read once, the index part is added up from the scores that were kept and the
  rest comes from the first kernel: skipped work shows, a key misread by that one kernel does not.
* Scratch: per token, head and split two floats (three in ``decode.py``, and one float per head
  and visual token); rows x keys is never in memory.
"""

import torch

from . import decode, rows

#: Query and K types; both must agree.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def attention_mass(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    first_row: torch.Tensor,
    index: torch.Tensor,
    index_start_loc: torch.Tensor,
    scale: float,
    mass: torch.Tensor,
    total: torch.Tensor,
    max_rows: int | None = None,
) -> None:
    """As :func:`kernels.attention_mass.naive.attention_mass`; all tensors on one device.

    Beyond that contract: the positions of a request in ``index`` ascend and differ, ``index`` may be
    longer than ``index_start_loc[-1]`` (the rest is never read), ``mass`` has unit stride in J, and
    ``max_rows`` should be given: without it the grid has room for every token of every request.
    Too small a ``max_rows`` counts only each request's last ones, which ``total`` then shows.

    Raises:
        ValueError: unsupported dtypes or shapes that do not fit each other.
    """
    _check(query, key_cache, index, mass, total, len(first_row))
    most = len(query) if max_rows is None else min(max_rows, len(query))
    if most <= 0 or len(first_row) == 0:
        return
    lanes = mass.view(1, -1) if mass.dim() == 1 else mass
    arguments = (
        query, key_cache, block_table, seq_lens, query_start_loc, first_row, index, index_start_loc, scale,
        lanes, total,
    )  # fmt: skip
    if most == 1:
        decode.launch(*arguments)
    else:
        rows.launch(*arguments, most)


def _check(query, key_cache, index, mass, total, requests) -> None:
    heads, head_dim = query.shape[1:]
    kv_heads = key_cache.shape[1]
    if query.dtype not in DTYPES or key_cache.dtype != query.dtype:
        raise ValueError(
            f"query and key_cache must have one dtype of {DTYPES}; received {query.dtype} "
            f"and {key_cache.dtype}"
        )
    if key_cache.shape[3] != head_dim or heads % kv_heads:
        raise ValueError(
            "expected query [tokens, heads, head_dim] and key_cache [blocks, kv_heads, block_size, head_dim] "
            f"with heads a multiple of kv_heads; received {tuple(query.shape)} and {tuple(key_cache.shape)}"
        )
    if mass.dtype != torch.float32 or mass.shape[-1] != index.shape[0] or mass.stride(-1) != 1:
        raise ValueError(
            f"expected mass float32 [J] or [lanes, J], J = {index.shape[0]}, unit stride in J; received "
            f"{mass.dtype} {tuple(mass.shape)}, strides {mass.stride()}"
        )
    if total.dtype != torch.float64 or total.shape != (requests,) or not total.is_contiguous():
        raise ValueError(
            f"expected total float64 [{requests}], contiguous; received {total.dtype} {tuple(total.shape)}"
        )
