"""The warm-up runs, whatever the K cache holds; on a GPU, nothing is compiled after it."""

import pytest
import torch

from tests.kernels.batches import Batch
from tests.kernels.conftest import NATIVE
from vllm_sgl.kernels.attention_mass.every_variant import run_every_variant
from vllm_sgl.kernels.attention_mass.kernel import attention_mass

pytestmark = pytest.mark.usefixtures("poisoned_scratch")


@pytest.mark.parametrize("block_size", [1, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_is_only_read(dtype, block_size, device):
    cache = torch.full((1, 2, block_size, 2 * 32), float("nan"), dtype=dtype, device=device)
    run_every_variant(cache[..., :32], heads=6, lanes=8)
    assert cache.isnan().all()


@pytest.mark.cuda
@pytest.mark.skipif(not NATIVE, reason="needs a CUDA GPU")
def test_nothing_is_compiled_afterwards(device, monkeypatch):
    import triton

    batch = Batch(
        query_lens=(9, 5), seq_lens=(75, 140), counted=(9, 1), visual=(range(3, 44), range(1, 70)),
        heads=14, head_dim=64, dtype=torch.bfloat16, device=device,
    )  # fmt: skip
    arguments = batch.tensors()
    run_every_variant(arguments["key_cache"], batch.heads, lanes=8)
    compiled = []
    monkeypatch.setattr(triton.knobs.runtime, "jit_post_compile_hook", lambda **about: compiled.append(about))
    for max_rows in (9, 1):
        mass, total = batch.outputs(lanes=8)
        attention_mass(**arguments, mass=mass, total=total, max_rows=max_rows)
    assert not compiled
