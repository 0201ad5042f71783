"""Importance out of what workers recorded, which must add up to what was to be counted."""

import math

import pytest
import torch

from vllm_sgl.errors import GuideError
from vllm_sgl.guide.local.mass import MASS_TOLERANCE, importance

#: Query rows, and heads of all layers and workers.
ROWS, HEADS = 5, 6


def recorded(total, *mass, rows=ROWS):
    return {"mass": torch.tensor(mass, dtype=torch.float32).numpy().tobytes(), "rows": rows, "total": total}


def test_workers_are_added_up_and_split_by_item():
    one, other = recorded(10.0, 1, 2, 3, 4), recorded(20.0, 10, 20, 30, 40)
    parts = importance([one, other], ROWS, HEADS, [1, 3])
    assert [part.tolist() for part in parts] == [[11], [22, 33, 44]]


@pytest.mark.parametrize("off", [-1.1, 1.1])
def test_mass_that_is_missing_or_too_much_is_an_error(off):
    expected = ROWS * HEADS
    within = recorded(expected * (1 + 0.9 * MASS_TOLERANCE * off / 1.1), 1)
    assert importance([within], ROWS, HEADS, [1])
    beyond = recorded(expected * (1 + MASS_TOLERANCE * off), 1)
    with pytest.raises(GuideError, match=r"capture is incomplete: total mass .*, expected 30 \(5 query rows"):
        importance([beyond], ROWS, HEADS, [1])


def test_a_worker_that_knows_nothing_is_an_error():
    with pytest.raises(GuideError, match=r"workers counted \[5\] rows"):
        importance([recorded(15.0, 1), None], ROWS, HEADS, [1])


@pytest.mark.parametrize("total", [math.nan, math.inf, -math.inf])
def test_a_total_that_is_no_number_is_an_error(total):
    """As where the small model overflows in float16."""
    with pytest.raises(GuideError, match=r"total mass -?(nan|inf), expected 30") as caught:
        importance([recorded(total, math.nan), recorded(15.0, 1)], ROWS, HEADS, [1])
    assert caught.value.reason == "guide_failed"
