"""ToMe: matching and merging against brute force, and the encoder that merges."""

import itertools

import pytest
import torch

from benchmarks.accuracy.baselines import tome
from tools.reference import reference


def features(seed, tokens):
    return torch.randn(tokens, 4, generator=torch.Generator().manual_seed(seed))


def cosines(features):
    return torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)


@pytest.fixture(scope="module")
def large(qwen2_pair):
    return reference(qwen2_pair[1])


@pytest.fixture(scope="module")
def pixels():
    """Three tiles."""
    return torch.randn(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))


class TestMatching:
    @pytest.mark.parametrize(("tokens", "count"), [(6, 2), (7, 3), (8, 4), (5, 0)])
    def test_against_brute_force(self, tokens, count):
        keys = torch.stack([features(seed, tokens) for seed in range(3)])
        source, target = tome.match(keys, count)
        for tile in range(3):
            alike = cosines(keys[tile])
            best = {a: max(range(1, tokens, 2), key=lambda b, a=a: alike[a, b]) for a in range(0, tokens, 2)}
            pairs = sorted(best.items(), key=lambda pair: -alike[pair])[:count]
            assert list(zip(source[tile].tolist(), target[tile].tolist(), strict=True)) == pairs

    def test_merging_averages_all_that_went_in(self):
        """Over three rounds: every token is the plain mean of the original tokens that it stands for."""
        tokens = 8
        original = features(1, tokens)[None]
        values, sizes, members = original, torch.ones(1, tokens), [[n] for n in range(tokens)]
        for count in (3, 2, 1):
            source, target = tome.match(values, count)
            for a, b in zip(source[0].tolist(), target[0].tolist(), strict=True):
                members[b] = members[b] + members[a]
            values, sizes, left = tome.merge(values, sizes, source, target)
            members = [members[n] for n in left[0].tolist()]
        assert sorted(itertools.chain(*members)) == list(range(tokens))
        assert sizes[0].tolist() == [len(one) for one in members]
        expected = torch.stack([original[0, one].mean(0) for one in members])
        torch.testing.assert_close(values[0], expected)

    @pytest.mark.parametrize(
        ("cells", "kept", "layers"), [(16, 1, 4), (16, 5, 4), (16, 16, 4), (256, 23, 45)]
    )
    def test_schedules_reach_what_is_kept_and_halve_at_most(self, cells, kept, layers):
        plan = tome.schedule(cells, kept, layers)
        assert (len(plan), cells - sum(plan)) == (layers, kept)
        left = cells
        for count in plan:
            assert 0 <= count <= left // 2
            left -= count

    def test_too_few_layers(self):
        with pytest.raises(ValueError, match="3 layers cannot merge 16 tokens into 1"):
            tome.schedule(16, 1, 3)

    def test_tiles_share_what_is_kept(self):
        assert tome.shares(11, 4) == [3, 3, 3, 2]
        assert tome.shares(2, 4) == [1, 1, 1, 1]


class TestMergingEncoder:
    def test_without_merging_it_is_the_models_own_encoder(self, large, pixels):
        tokens, places = tome.encode(large, pixels, 16)
        torch.testing.assert_close(tokens.flatten(0, 1), large.visual_features(pixels), rtol=1e-4, atol=1e-5)
        assert places.tolist() == [list(range(16))] * 3

    def test_the_rest_are_fewer_in_order_and_others(self, large, pixels):
        tokens, places = tome.encode(large, pixels, 5)
        assert tokens.shape == (3, 5, large.model.config.text_config.hidden_size)
        assert (places.diff(dim=1) > 0).all()
        unmerged = large.visual_features(pixels).unflatten(0, (3, 16))
        kept = unmerged.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))
        assert not torch.allclose(tokens, kept, atol=1e-3)

    def test_copies_merge_without_a_trace(self, large, pixels):
        """A tile of one colour has only positions to tell its tokens apart; take them away, and merged tokens
        are what each of them was: proportional attention and weighted averages."""
        embeddings = large.model.model.vision_tower.embeddings
        before = embeddings.position_embeddings.data.clone()
        try:
            embeddings.position_embeddings.data[:, 1:] = 0
            plain = torch.full_like(pixels[:1], 0.3)
            whole = large.visual_features(plain)
            merged, _ = tome.encode(large, plain, 4)
        finally:
            embeddings.position_embeddings.data.copy_(before)
        torch.testing.assert_close(merged[0], whole[:4], rtol=1e-4, atol=1e-5)

    def test_an_answer_about_unmerged_tokens_is_the_models_own(self, large, pixels):
        tokens = 3 * 16
        ids = [1, 2, *[large.image_token_id] * tokens, 3, 4]
        expected = large.generate(ids, [pixels], 4)
        found = tome.generate(large, ids, [pixels], tokens, 4)
        assert found.tokens == expected.tokens
        torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=1e-3, atol=1e-4)
        fewer = tome.generate(large, ids, [pixels[:1], pixels[1:]], 17, 4)
        assert not torch.allclose(fewer.logprobs[:1], expected.logprobs[:1], atol=1e-4)
