"""gather_visual: Triton against plain torch. A copy and a cast: equal bits.

Except that Triton's interpreter cuts bits off on the way to bfloat16, where a GPU and torch round to
nearest: there, one unit in the last place is allowed.
"""

from unittest.mock import Mock

import pytest
import torch

from tests.kernels.conftest import INTERPRETED, NATIVE
from vllm_sgl.kernels.gather_visual.kernel import _on, gather_visual
from vllm_sgl.kernels.gather_visual.naive import gather_visual as naive

pytestmark = pytest.mark.usefixtures("poisoned_scratch")
FUNCTIONS = pytest.mark.parametrize("function", [gather_visual, naive], ids=["kernel", "naive"])
KEPT = [0, 3, 4, 11, 29]


def assert_same(got, expected):
    assert got.dtype == expected.dtype
    if INTERPRETED and got.dtype == torch.bfloat16:
        torch.testing.assert_close(got, expected, rtol=2**-7, atol=0)
    else:
        assert torch.equal(got, expected)


def features(device, hidden=1500, dtype=torch.float16):
    """A view into wider rows; the rows that are not kept are poison."""
    rows = torch.full((30, hidden + 8), float("nan"))
    rows[KEPT] = torch.randn(len(KEPT), hidden + 8, generator=torch.Generator().manual_seed(0))
    return rows.to(dtype).to(device)[:, :hidden]


@pytest.mark.parametrize("where", ["features'", "cpu"])
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hidden", [1, 16, 1024, 1500, 3000])
def test_kept_rows(hidden, dtype, where, device):
    kept = torch.tensor(KEPT, device="cpu" if where == "cpu" else device)
    got = gather_visual(features(device, hidden), kept, dtype)
    expected = naive(features(device, hidden), kept, dtype)
    assert got.dtype == (dtype or torch.float16)
    assert got.device.type == device.type
    assert_same(got, expected)


def test_columns_apart(device):
    """Features whose columns do not lie side by side."""
    transposed = features(device, 40).t().contiguous().t()
    assert_same(gather_visual(transposed, torch.tensor(KEPT)), naive(transposed, torch.tensor(KEPT)))


@pytest.mark.parametrize(("rows", "hidden"), [(0, 1500), (5, 0)])
def test_nothing_to_move(rows, hidden, device):
    kept = torch.tensor(KEPT[:rows], dtype=torch.int64)
    assert gather_visual(features(device, hidden), kept).shape == (rows, hidden)


@FUNCTIONS
@pytest.mark.parametrize(
    ("shape", "kept", "text"),
    [
        ((5, 6, 7), torch.tensor([1]), r"received \(5, 6, 7\)"),
        ((5, 6), torch.tensor([[1]]), r"and \(1, 1\)"),
        ((5, 6), torch.tensor([True] * 5), "torch.bool"),
        ((5, 6), torch.tensor([0, 5]), "between 0 and 4; received 0 to 5"),
        ((5, 6), torch.tensor([-1, 2]), "received -1 to 2"),
        ((0, 6), torch.tensor([0]), "received 0 to 0"),
    ],
)
def test_arguments_that_do_not_fit(function, shape, kept, text):
    with pytest.raises(ValueError, match=text):
        function(torch.zeros(shape), kept)


def test_indices_go_to_a_gpu_through_pinned_memory():
    """What a GPU is not needed for: out of pageable memory the copy would make the host wait."""
    kept, gpu = Mock(device=torch.device("cpu")), torch.device("cuda")
    assert _on(gpu, kept) is kept.pin_memory.return_value.to.return_value
    kept.pin_memory.return_value.to.assert_called_once_with(gpu, non_blocking=True)


@pytest.mark.cuda
@pytest.mark.skipif(not NATIVE, reason="needs a CUDA GPU")
def test_the_host_does_not_wait(device):
    """Rows chosen on the CPU, in pageable memory, as they come with a request."""
    visual, kept = features(device), torch.tensor(KEPT)
    gather_visual(visual, kept)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        gather_visual(visual, kept)
    finally:
        torch.cuda.set_sync_debug_mode("default")
