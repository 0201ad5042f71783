"""The operations that ``python -m benchmarks.kernels`` knows, with the shapes of InternVL2.

Guide: InternVL2-2B, 16 heads over 8 K heads of 128 dimensions. Large model: InternVL2-26B, hidden size
6,144, 8 K heads of 128. A picture of 13 tiles is 3,328 visual tokens; 35 % of them are 1,164.
"""

from functools import partial

import torch
import torch.nn.functional as F

from vllm_sgl.kernels.attention_mass import attention_mass as mass_kernel
from vllm_sgl.kernels.attention_mass.naive import attention_mass as mass_naive
from vllm_sgl.kernels.gather_visual import gather_visual as gather_kernel
from vllm_sgl.kernels.gather_visual.naive import gather_visual as gather_naive

from .work import Work, operation

GUIDE = {"heads": 16, "kv_heads": 8, "head_dim": 128, "dtype": torch.bfloat16}
PROMPT = {"visual": 3328, "text": 64, **GUIDE}
#: Relative, of mass; the matrix unit keeps a few bits less than float32 when it adds.
MASS_TOLERANCE, TOTAL_TOLERANCE = 1e-4, 1e-5
BLOCK_SIZE = 16


@operation(
    small={"requests": 1, "visual": 96, "text": 8, "rows": 8, "heads": 4, "kv_heads": 2, "head_dim": 32,
           "dtype": torch.float32, "lanes": 1},
    prefill={"requests": 1, "rows": 64, "lanes": 8, **PROMPT},
    prefill_one_lane={"requests": 1, "rows": 64, "lanes": 1, **PROMPT},
    decode_32={"requests": 32, "rows": 1, "lanes": 1, **PROMPT},
    decode_1={"requests": 1, "rows": 1, "lanes": 1, **PROMPT},
)  # fmt: skip
def attention_mass(device, *, requests, visual, text, rows, heads, kv_heads, head_dim, dtype, lanes) -> Work:
    """The last ``rows`` tokens count. Prefill computes the whole prompt in one step, decode one token."""
    keys = 4 + visual + text
    queries = keys if rows > 1 else 1
    pages = -(-keys // BLOCK_SIZE)
    random = partial(torch.randn, dtype=dtype, device=device)
    query = random(requests * queries, heads, head_dim)
    cache = random(requests * pages, kv_heads, BLOCK_SIZE, 2 * head_dim)
    table = torch.randperm(requests * pages, device=device).view(requests, pages).int()
    inputs = {
        "query": query,
        "key_cache": cache[..., :head_dim],
        "block_table": table,
        "seq_lens": torch.full((requests,), keys, dtype=torch.int32, device=device),
        "query_start_loc": torch.arange(requests + 1, dtype=torch.int32, device=device) * queries,
        "first_row": torch.full((requests,), queries - rows, device=device),
        "index": torch.arange(4, 4 + visual, device=device).repeat(requests),
        "index_start_loc": torch.arange(requests + 1, device=device) * visual,
        "scale": head_dim**-0.5,
        "max_rows": rows,
    }

    def outputs():
        mass = torch.zeros(lanes, requests * visual, device=device)
        return {"mass": mass, "total": torch.zeros(requests, dtype=torch.float64, device=device)}

    def verify():
        ours, reference = outputs(), outputs()
        mass_kernel(**inputs, **ours)
        mass_naive(**inputs, **reference)
        # The smallest masses are compared with the average one.
        mean = reference["mass"].sum().item() / (requests * visual)
        torch.testing.assert_close(
            ours["mass"].sum(0), reference["mass"].sum(0), rtol=MASS_TOLERANCE, atol=MASS_TOLERANCE * mean
        )
        expected = torch.full_like(ours["total"], rows * heads)
        torch.testing.assert_close(ours["total"], expected, rtol=TOTAL_TOLERANCE, atol=0)

    attention = _attention(random, requests, queries, keys, heads, kv_heads, head_dim)
    element, written = query.element_size(), requests * visual * 4
    passes = 2 if rows > 1 else 1
    return Work(
        kernel=partial(mass_kernel, **inputs, **outputs()),
        naive=partial(mass_naive, **inputs, **outputs()),
        verify=verify,
        moved=requests * head_dim * element * (kv_heads * keys + heads * rows) + 2 * written,
        flops=passes * 2 * requests * rows * heads * keys * head_dim,
        stand_in=("SDPA of the layer", attention),
    )


def _attention(random, requests, queries, keys, heads, kv_heads, head_dim):
    """The layer's own attention over contiguous K and V: torch picks FlashAttention where it can."""
    query = random(requests, heads, queries, head_dim)
    key, value = random(2, requests, kv_heads, keys, head_dim)
    return partial(
        F.scaled_dot_product_attention, query, key, value, is_causal=queries > 1, enable_gqa=heads != kv_heads
    )


@operation(
    small={"visual": 96, "kept": 33, "hidden": 64},
    internvl2_26b={"visual": 3328, "kept": 1164, "hidden": 6144},
)
def gather_visual(device, *, visual, kept, hidden) -> Work:
    """One image's kept features, as the model holds them: bfloat16, rows chosen on the CPU."""
    features = torch.randn(visual, hidden, device=device).bfloat16()
    rows = torch.randperm(visual)[:kept].sort().values

    def verify():
        assert torch.equal(gather_kernel(features, rows), gather_naive(features, rows)), "other bits"

    return Work(
        kernel=partial(gather_kernel, features, rows),
        naive=partial(gather_naive, features, rows),
        verify=verify,
        moved=2 * kept * hidden * features.element_size(),
    )
