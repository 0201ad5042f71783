"""Which visual tokens are kept: max(1, floor(R * N)) of them, ranked jointly, ties to the lower index."""

import math

import pytest
import torch

from tools.internvl_reference.reference import select
from vllm_sgl.core import Seen, VisualItem
from vllm_sgl.prune.base import kept_count
from vllm_sgl.prune.top import TopImportance


def seen(importance):
    return [Seen(VisualItem("image", len(part)), part) for part in importance]


@pytest.mark.parametrize(
    ("retention", "tokens", "count"),
    [(0.35, 112, 39), (0.09, 112, 10), (0.05, 16, 1), (0.001, 5, 1), (1.0, 7, 7), (0.5, 7, 3), (0.999, 1, 1)],
)
def test_kept_count(retention, tokens, count):
    assert kept_count(retention, tokens) == count


def test_kept_count_is_the_formula_over_a_grid():
    for percent in range(1, 101):
        for tokens in (1, 2, 3, 16, 64, 112, 256, 3328):
            retention = percent / 100
            assert kept_count(retention, tokens) == max(1, math.floor(retention * tokens))


@pytest.mark.parametrize(
    ("scores", "retention", "kept"),
    [
        ([[1.0, 3.0, 2.0]], 0.34, [[1]]),
        ([[1.0, 3.0, 2.0]], 0.7, [[1, 2]]),
        ([[1.0, 3.0, 2.0]], 0.01, [[1]]),
        ([[5.0] * 6], 0.5, [[0, 1, 2]]),
        ([[0.0, 2.0], [2.0, 9.0, 2.0]], 0.6, [[1], [0, 1]]),
        ([[1.0, 1.0], [4.0, 5.0]], 0.5, [[], [0, 1]]),
        ([[4.0, 5.0], [1.0, 1.0]], 0.5, [[0, 1], []]),
        ([[2.0], [2.0], [2.0]], 0.67, [[0], [0], []]),
        ([[1.0, 2.0]], 1.0, [[0, 1]]),
    ],
)
def test_selection(scores, retention, kept):
    chosen = TopImportance().select(seen([torch.tensor(part) for part in scores]), retention)
    assert [part.tolist() for part in chosen] == kept
    assert all(part.dtype == torch.int64 for part in chosen)


def test_many_ties_go_to_the_lower_index_as_the_reference_has_it():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        importance = [torch.randint(0, 4, (n,), generator=generator).float() for n in (300, 16, 1000)]
        for retention in (0.05, 0.09, 0.35, 0.64):
            ours, theirs = TopImportance().select(seen(importance), retention), select(importance, retention)
            assert [part.tolist() for part in ours] == [part.tolist() for part in theirs]
            assert sum(map(len, ours)) == kept_count(retention, 1316)
