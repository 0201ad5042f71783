"""attention_mass: Triton against the float32 reference, on the GPU or through the interpreter."""

from dataclasses import replace

import pytest
import torch

from tests.kernels.batches import Batch
from tests.kernels.conftest import NATIVE
from vllm_sgl.kernels.attention_mass import decode, rows
from vllm_sgl.kernels.attention_mass.kernel import attention_mass
from vllm_sgl.kernels.attention_mass.naive import attention_mass as naive

pytestmark = pytest.mark.usefixtures("poisoned_scratch")

# Relative. Inputs are the same 16-bit values on both sides and products are exact in float32, so the
# types differ only in how a GPU's matrix unit adds: it keeps a few bits less than float32 there.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-4, torch.float16: 1e-4}
TOTAL_TOLERANCE = 1e-5

TEXT = range(0)
#: A prompt with its image early, a decode row, a chunk before the text (nothing counts), no image.
RAGGED = Batch(
    query_lens=(30, 1, 20, 9),
    seq_lens=(75, 140, 40, 9),
    counted=(21, 1, 0, 4),
    visual=(range(3, 44), [*range(1, 70), *range(80, 131, 2)], range(5, 40), TEXT),
)
ONE_ROW = replace(RAGGED, query_lens=(30, 1, 1, 9), counted=(1, 1, 0, 1))
VARIANTS = {
    "fp32": {},
    "fp32-mha-transposed": {"kv_heads": 4, "transposed": True},
    "bf16-gqa": {"dtype": torch.bfloat16, "head_dim": 64},
    "fp16-groups-of-3": {"dtype": torch.float16, "heads": 6, "head_dim": 80, "block_size": 8},
    "bf16-mqa-large-block": {"dtype": torch.bfloat16, "kv_heads": 1, "head_dim": 128, "block_size": 128},
    "fp16-256-wide": {"dtype": torch.float16, "heads": 2, "head_dim": 256, "block_size": 48},
    "fp32-padded": {"padding": 5},
    "bf16-large-table": {"dtype": torch.bfloat16, "table_width": 9000},
}


def compare(batch: Batch, max_rows: int | None, lanes: int = 0) -> None:
    arguments = batch.tensors()
    mass, total = batch.outputs(lanes)
    attention_mass(**arguments, mass=mass, total=total, max_rows=max_rows)
    reference, reference_total = batch.outputs()
    naive(**arguments, mass=reference, total=reference_total)

    used = sum(map(len, batch.visual))
    mass = mass.sum(0) if lanes else mass
    tolerance = TOLERANCE[batch.dtype]
    torch.testing.assert_close(mass[:used], reference[:used], rtol=tolerance, atol=tolerance)
    assert torch.equal(mass[used:], reference[used:]), "elements behind the batch were written"
    for name, value in (("kernel", total), ("naive", reference_total)):
        got, expected = value.cpu() - 0.5, batch.expected_total
        torch.testing.assert_close(
            got, expected, rtol=TOTAL_TOLERANCE, atol=0, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture
def in_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut every sequence into four, as short ones never are by themselves."""
    for module in (rows, decode):
        monkeypatch.setattr(module, "choose_splits", lambda *_: 4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows(variant, in_four, device):
    compare(replace(RAGGED, device=device, **VARIANTS[variant]), max_rows=21)


@pytest.mark.parametrize("variant", VARIANTS)
def test_decode(variant, in_four, device):
    compare(replace(ONE_ROW, device=device, **VARIANTS[variant]), max_rows=1)


def test_unsplit(device):
    compare(replace(RAGGED, device=device), max_rows=21)
    compare(replace(ONE_ROW, device=device), max_rows=1)


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_lanes_add_up(lanes, device):
    compare(replace(RAGGED, heads=3, kv_heads=3, device=device), max_rows=21, lanes=lanes)
    compare(replace(ONE_ROW, device=device), max_rows=1, lanes=lanes)


def test_rows_unknown(device):
    """Without max_rows there is room for every token of the batch."""
    compare(replace(RAGGED, device=device), max_rows=None)


def test_one_request(device):
    """Triton turns arguments that are 1 into constants."""
    batch = Batch(query_lens=(5,), seq_lens=(20,), counted=(3,), visual=(range(2, 17),), device=device)
    compare(batch, max_rows=3)
    compare(replace(batch, query_lens=(1,), counted=(1,)), max_rows=1)


def test_several_tiles_of_columns(device):
    visual = (range(4, 280), [*range(9, 150), 290])
    batch = Batch(query_lens=(2, 3), seq_lens=(300, 299), counted=(2, 1), visual=visual, device=device)
    compare(batch, max_rows=2)
    compare(replace(batch, counted=(1, 1)), max_rows=1)


def test_visual_tokens_among_the_rows(device):
    """A later image lies behind counted rows: the causal mask hides it from some of them."""
    batch = Batch(query_lens=(90,), seq_lens=(90,), counted=(80,), visual=(range(5, 90, 3),), device=device)
    compare(batch, max_rows=80)


@pytest.mark.parametrize("max_rows", [1, 21])
def test_nothing_counts(max_rows, device):
    batch = replace(RAGGED, counted=(0, 0, 0, 0), device=device)
    compare(batch, max_rows)


@pytest.mark.parametrize("max_rows", [1, 21])
def test_no_visual_tokens(max_rows, device):
    compare(replace(RAGGED if max_rows > 1 else ONE_ROW, visual=(TEXT,) * 4, device=device), max_rows)


def test_large_scores(device):
    """Differences of hundreds between scores: maxima must not be lost between the two kernels."""
    batch = replace(RAGGED, device=device)
    arguments = batch.tensors() | {"scale": 10.0}
    mass, total = batch.outputs()
    attention_mass(**arguments, mass=mass, total=total, max_rows=21)
    reference, _ = batch.outputs()
    naive(**arguments, mass=reference, total=torch.zeros_like(total))
    torch.testing.assert_close(mass, reference, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(total.cpu() - 0.5, batch.expected_total, rtol=1e-4, atol=0)


@pytest.mark.parametrize("positions", [[3, 3, 4, 5], [9, 4, 3, 20], [3, 4, 5, 60]])
def test_total_shows_a_bad_index(positions, device):
    """Repeated, unsorted or not in the sequence: the sum over all keys no longer is rows x heads."""
    batch = Batch(query_lens=(6,), seq_lens=(32,), counted=(5,), visual=(positions,), device=device)
    mass, total = batch.outputs()
    attention_mass(**batch.tensors(), mass=mass, total=total, max_rows=5)
    assert not torch.allclose(total.cpu() - 0.5, batch.expected_total, rtol=1e-3)


@pytest.mark.parametrize("max_rows", [1, 7])
def test_total_shows_rows_left_out(max_rows, device):
    """max_rows is too small: each request's last rows count."""
    batch = replace(RAGGED, device=device)
    arguments = batch.tensors()
    mass, total = batch.outputs()
    attention_mass(**arguments, mass=mass, total=total, max_rows=max_rows)
    counted = torch.tensor([min(c, max_rows) for c in batch.counted])
    torch.testing.assert_close(
        total.cpu() - 0.5, counted.double() * batch.heads, rtol=TOTAL_TOLERANCE, atol=0
    )

    reference, reference_total = batch.outputs()
    arguments["first_row"] = torch.tensor(batch.query_lens, device=device) - counted.to(device)
    naive(**arguments, mass=reference, total=reference_total)
    torch.testing.assert_close(mass, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"query": torch.zeros(2, 4, 32, dtype=torch.float64)}, "dtype"),
        ({"query": torch.zeros(2, 3, 32)}, "multiple of kv_heads"),
        ({"mass": torch.zeros(5)}, "mass float32"),
        ({"total": torch.zeros(4)}, "total float64"),
    ],
)
def test_arguments_that_do_not_fit(changes, text):
    mass, total = RAGGED.outputs()
    with pytest.raises(ValueError, match=text):
        attention_mass(**RAGGED.tensors() | {"mass": mass, "total": total} | changes)


@pytest.mark.cuda
@pytest.mark.skipif(not NATIVE, reason="needs a CUDA GPU")
@pytest.mark.parametrize("batch", [RAGGED, ONE_ROW], ids=["rows", "decode"])
def test_in_a_cuda_graph(batch, device):
    """Captured and replayed: the same bits as eagerly, and no host synchronisation."""
    batch = replace(batch, dtype=torch.bfloat16, device=device)
    arguments = batch.tensors() | {"max_rows": max(batch.counted)}
    attention_mass(**arguments, **dict(zip(("mass", "total"), batch.outputs(), strict=True)))  # compiles
    mass, total = batch.outputs()
    torch.cuda.set_sync_debug_mode("error")
    try:
        attention_mass(**arguments, mass=mass, total=total)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected, expected_total = mass.clone(), total.clone()

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # records only
        attention_mass(**arguments, mass=mass, total=total)
    for tensor, start in zip((mass, total), batch.outputs(), strict=True):
        tensor.copy_(start)
    graph.replay()
    assert torch.equal(mass, expected)
    torch.testing.assert_close(total, expected_total, rtol=1e-12, atol=0)
