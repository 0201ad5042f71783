"""DivPrune and CDPruner against their definitions and brute force on small sets."""

import itertools
import math

import pytest
import torch

from benchmarks.accuracy.baselines import cdpruner, divprune

TOKENS, WIDTH = 9, 4


def features(seed, tokens=TOKENS, width=WIDTH):
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed))


def cosines(features):
    return torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)


class TestDivPrune:
    @pytest.mark.parametrize("seed", range(5))
    def test_every_token_is_the_one_farthest_from_those_before(self, seed):
        distance = (1 - cosines(features(seed))).tolist()
        first, *others = divprune.order(features(seed)).tolist()
        assert sorted([first, *others]) == list(range(TOKENS))
        apart = [min(distance[i][j] for j in range(TOKENS) if j != i) for i in range(TOKENS)]
        assert first == apart.index(max(apart))
        chosen = [first]
        for token in others:
            nearest = {i: min(distance[i][j] for j in chosen) for i in range(TOKENS) if i not in chosen}
            assert nearest[token] == pytest.approx(max(nearest.values()), abs=1e-6)
            chosen.append(token)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("count", [2, 3, 4])
    def test_the_set_is_at_least_half_as_spread_as_the_best_in_a_metric(self, seed, count):
        """Greedy max-min is within a factor of 2 where the triangle inequality holds; for 1 - cosine it does
        for the square root, so within 4."""
        distance = 1 - cosines(features(seed))

        def spread(chosen):
            return min(distance[i, j].item() for i, j in itertools.combinations(chosen, 2))

        best = max(spread(chosen) for chosen in itertools.combinations(range(TOKENS), count))
        assert spread(divprune.order(features(seed)).tolist()[:count]) >= best / 4

    def test_copies_come_last(self):
        some = features(0, 4)
        order = divprune.order(torch.cat([some, some])).tolist()
        assert sorted(token % 4 for token in order[:4]) == [0, 1, 2, 3]
        assert divprune.order(some[:1]).tolist() == [0]


class TestCDPruner:
    @pytest.mark.parametrize("seed", range(5))
    def test_every_token_makes_the_determinant_largest(self, seed):
        relevance = torch.rand(TOKENS, generator=torch.Generator().manual_seed(seed)).double()
        kernel = relevance[:, None] * cosines(features(seed).double()) * relevance
        order = cdpruner.order(features(seed), relevance).tolist()
        for size in range(WIDTH):  # of more, the determinant is 0
            of = {i: kernel[[*order[:size], i]][:, [*order[:size], i]].det() for i in range(TOKENS)}
            best = max((value, -i) for i, value in of.items() if i not in order[:size])
            assert order[size] == -best[1]

    @pytest.mark.parametrize("seed", range(5))
    def test_the_set_is_nearly_the_best_of_all(self, seed):
        """Greedy for a DPP: log-determinants are submodular. Held to what brute force finds."""
        kernel = cosines(features(seed).double())
        order = cdpruner.order(features(seed), torch.ones(TOKENS)).tolist()
        best = max(kernel[list(s)][:, list(s)].det() for s in itertools.combinations(range(TOKENS), 3))
        assert kernel[order[:3]][:, order[:3]].det() > 0.6 * best

    def test_relevance_decides_between_equals(self):
        """Orthogonal tokens and their copies: of each pair the more relevant, the most relevant first; then,
        with nothing new left, by relevance."""
        axes = torch.eye(3)
        relevance = torch.tensor([0.2, 0.9, 0.5, 1.0, 0.3, 0.6])
        assert cdpruner.order(torch.cat([axes, axes]), relevance).tolist() == [3, 1, 5, 2, 4, 0]

    def test_relevance_is_the_mean_cosine_stretched(self):
        visual = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
        words = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
        mean = torch.tensor([(1 + math.sqrt(0.5)) / 2, math.sqrt(0.5) / 2, -(1 + math.sqrt(0.5)) / 2])
        expected = (mean - mean.min()) / (mean.max() - mean.min())
        torch.testing.assert_close(cdpruner.relevance(visual, words), expected.double())
        assert cdpruner.relevance(visual[:1], words).tolist() == [1]
