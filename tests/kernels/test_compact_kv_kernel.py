"""compact_kv: Triton against plain torch, and plain torch against a loop. A copy: equal bits."""

import pytest
import torch

from vllm_sgl.kernels.compact_kv.kernel import compact_kv
from vllm_sgl.kernels.compact_kv.naive import compact_kv as naive

pytestmark = pytest.mark.usefixtures("poisoned_scratch")
FUNCTIONS = pytest.mark.parametrize("function", [compact_kv, naive], ids=["kernel", "naive"])

BLOCKS, KV_HEADS, BLOCK_SIZE, WIDTH = 6, 3, 16, 48
MOVES = {
    "apart": ([3, 4, 9, 40], [80, 81, 82, 95]),
    "down": ([5, 8, 9, 30, 31], [4, 5, 6, 7, 8]),  # compaction: sources are destinations too
    "up": ([4, 5, 6, 7], [5, 6, 7, 8]),
    "cycle": ([1, 20, 50], [20, 50, 1]),
    "padded": ([3, -1, 9, 40], [80, 81, -1, 82]),
    "nothing": ([], []),
}


def cache(device, dtype=torch.bfloat16, block_size=BLOCK_SIZE):
    values = torch.randn(
        BLOCKS, KV_HEADS, block_size, WIDTH, generator=torch.Generator().manual_seed(block_size)
    )
    return values.to(dtype).to(device)


def moved(before, into, source, destination):
    """What a loop over tokens gives."""
    after = into.clone()
    for s, d in zip(source, destination, strict=True):
        if s >= 0 and d >= 0:
            after[d // into.shape[2], :, d % into.shape[2]] = before[s // BLOCK_SIZE, :, s % BLOCK_SIZE]
    return after


@FUNCTIONS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("move", MOVES)
def test_within_one_cache(function, move, dtype, device):
    source, destination = MOVES[move]
    kv_cache = cache(device, dtype)
    expected = moved(kv_cache.clone(), kv_cache, source, destination)
    function(kv_cache, *(torch.tensor(s, dtype=torch.int64, device=device) for s in (source, destination)))
    assert torch.equal(kv_cache, expected)


@FUNCTIONS
@pytest.mark.parametrize("block_size", [8, 128])
def test_into_another_cache(function, block_size, device):
    """Another block size, 32-bit slots, and memory in another order ([.., block_size, kv_heads, width])."""
    source, destination = MOVES["down"]
    kv_cache = cache(device)
    out = cache(device, block_size=block_size).transpose(1, 2).contiguous().transpose(1, 2)
    expected = moved(kv_cache, out, source, destination)
    before = kv_cache.clone()
    slots = (torch.tensor(s, dtype=torch.int32, device=device) for s in (source, destination))
    function(kv_cache, *slots, out=out)
    assert torch.equal(out, expected)
    assert torch.equal(kv_cache, before)


@FUNCTIONS
def test_what_is_refused(function):
    kv_cache = cache("cpu")
    slots = torch.tensor([1, 2])
    with pytest.raises(ValueError, match="equal kv_heads and width"):
        function(kv_cache, slots, slots, out=kv_cache[..., :8].clone())
    with pytest.raises(ValueError, match="one dtype"):
        function(kv_cache, slots, slots, out=kv_cache.float())
    with pytest.raises(ValueError, match="equal length"):
        function(kv_cache, slots, slots[:1])
    with pytest.raises(ValueError, match="different views"):
        function(kv_cache, slots, slots, out=kv_cache[1:])
