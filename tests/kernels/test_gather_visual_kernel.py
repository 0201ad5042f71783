"""gather_visual: Triton against plain torch. A copy and a cast: equal bits.

Except that Triton's interpreter cuts bits off on the way to bfloat16, where a GPU and torch round to
nearest: there, one unit in the last place is allowed.
"""

import pytest
import torch

from tests.kernels.conftest import INTERPRETED
from vllm_sgl.kernels.gather_visual.kernel import gather_visual
from vllm_sgl.kernels.gather_visual.naive import gather_visual as naive

pytestmark = pytest.mark.usefixtures("poisoned_scratch")
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


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hidden", [16, 1500])
def test_new_tensor(dtype, hidden, device):
    kept = torch.tensor(KEPT, device=device)
    got = gather_visual(features(device, hidden), kept, dtype=dtype)
    expected = naive(features(device, hidden), kept, dtype=dtype)
    assert got.dtype == (dtype or torch.float16)
    assert_same(got, expected)


@pytest.mark.parametrize("rows", [None, [7, 2, 3, 9, 0]], ids=["in-order", "placed"])
def test_into_input_embeddings(rows, device):
    kept = torch.tensor(KEPT)  # on the CPU, as vLLM keeps it
    rows = None if rows is None else torch.tensor(rows)
    outs = [torch.full((10, 1600), 5.0, dtype=torch.bfloat16, device=device) for _ in range(2)]
    for function, out in zip((gather_visual, naive), outs, strict=True):
        window = out[:, 50:1550]
        assert function(features(device, dtype=torch.float32), kept, window, rows) is window
    assert_same(*outs)
    assert (outs[0] == 5.0).all(1).sum() == 5, "rows that no token belongs to were written"


def test_nothing_kept(device):
    assert gather_visual(features(device), torch.zeros(0, dtype=torch.int64)).shape == (0, 1500)


@pytest.mark.parametrize("function", [gather_visual, naive], ids=["kernel", "naive"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rows": torch.tensor(KEPT)}, "without out"),
        ({"out": torch.zeros(5, 1500), "dtype": torch.float32}, "out decides"),
        ({"out": torch.zeros(5, 1499)}, "1500"),
        ({"out": torch.zeros(4, 1500)}, "too few"),
        ({"out": torch.zeros(5, 1500), "rows": torch.tensor([1])}, "one row for each"),
    ],
)
def test_arguments_that_do_not_fit(function, arguments, text):
    with pytest.raises(ValueError, match=text):
        function(features("cpu"), torch.tensor(KEPT), **arguments)


@pytest.mark.parametrize("function", [gather_visual, naive], ids=["kernel", "naive"])
def test_shared_memory_is_refused(function):
    visual = torch.zeros(8, 4)
    with pytest.raises(ValueError, match="shares memory"):
        function(visual, torch.tensor([4, 5]), out=visual[:2])
