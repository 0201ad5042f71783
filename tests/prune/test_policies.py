"""Which visual tokens are kept: max(1, floor(R * N)) of them, ranked jointly, ties to the lower index."""

import math

import pytest
import torch

from tools.reference import select
from vllm_sgl.core import Seen, VisualItem
from vllm_sgl.prune import registry
from vllm_sgl.prune.base import kept_count
from vllm_sgl.prune.minimum import AtLeast
from vllm_sgl.prune.registry import check_policy, policy, register_policy
from vllm_sgl.prune.top import TopImportance


def seen(importance, least=0):
    return [Seen(VisualItem("image", len(part), least=least), part) for part in importance]


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


@pytest.mark.parametrize(
    ("scores", "retention", "kept"),
    [
        ([[1.0, 2.0], [9.0, 8.0]], 0.5, [[1], [0]]),
        ([[1.0, 2.0], [9.0, 8.0]], 0.75, [[1], [0, 1]]),
        ([[1.0, 2.0, 1.0, 1.0], [9.0, 8.0, 7.0, 6.0]], 0.01, [[1], [0]]),  # more items than tokens
        ([[3.0, 3.0], [9.0, 9.0], [3.0, 3.0]], 0.5, [[0], [0], [0]]),
        ([[0.0, 0.0], [0.0, 0.0]], 0.5, [[0], [0]]),
    ],
)
def test_every_item_keeps_its_best_where_it_must(scores, retention, kept):
    chosen = policy("top").select(seen([torch.tensor(part) for part in scores], least=1), retention)
    assert [part.tolist() for part in chosen] == kept
    assert all(part.dtype == torch.int64 for part in chosen)


def test_what_every_item_keeps_costs_no_more_and_is_as_the_reference_has_it():
    """Many ties, items of one token, and more items than tokens to keep among the draws."""
    generator = torch.Generator().manual_seed(1)
    missing = 0
    for draw in range(40):
        sizes = [1 + int(n) for n in torch.randint(0, 60, (5,), generator=generator)]
        importance = [draw % 3 + 5 * torch.rand(n, generator=generator).round(decimals=1) for n in sizes]
        importance[draw % 5] = importance[draw % 5] - 10
        for retention in (0.01, 0.09, 0.35, 0.64):
            plain = TopImportance().select(seen(importance), retention)
            missing += any(not len(part) for part in plain)
            ours = policy("top").select(seen(importance, least=1), retention)
            theirs = select(importance, retention, least=1)
            assert [part.tolist() for part in ours] == [part.tolist() for part in theirs]
            assert sum(map(len, ours)) == max(kept_count(retention, sum(sizes)), len(sizes))
    assert missing > 100


def test_any_policy_leaves_every_item_something():
    class Nothing:
        def select(self, seen, retention):
            return [torch.arange(3), *[torch.zeros(0, dtype=torch.int64)] * 2]

    items = [
        Seen(VisualItem("image", 4, least=1), torch.tensor([1.0, 0.5, 0.5, 9.0])),
        Seen(VisualItem("image", 2, least=1), torch.tensor([0.1, 0.2])),
        Seen(VisualItem("image", 2, least=0), torch.tensor([7.0, 8.0])),
    ]
    assert [part.tolist() for part in AtLeast(Nothing()).select(items, 0.5)] == [[0, 1], [1], []]


class KeepsTheFirst:
    """A policy of somebody else: the first token of each item."""

    def select(self, seen, retention):
        return [torch.tensor([0]) for _ in seen]


def test_another_packages_policy_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr(registry, "_POLICIES", dict(registry._POLICIES))
    with pytest.raises(ValueError, match="received 'first'"):
        check_policy("first")
    register_policy("first", f"{__name__}:KeepsTheFirst")
    check_policy("first")
    (kept,) = policy("first").select(seen([torch.tensor([1.0, 3.0, 2.0])]), 0.5)
    assert kept.tolist() == [0]
    register_policy("first", f"{__name__}:KeepsTheFirst")  # the same again is no other
    with pytest.raises(ValueError, match=r"'top' is vllm_sgl\.prune\.top:TopImportance already"):
        register_policy("top", f"{__name__}:KeepsTheFirst")
    policy.cache_clear()
