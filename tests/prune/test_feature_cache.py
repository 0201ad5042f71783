"""Vision features of recent images: the cache itself, and how often the encoder runs with it."""

import asyncio

import pytest
import torch

from tests.support.compare import assert_same_answer
from tests.support.encoded import Encoded
from tests.support.engines import Engines, inputs
from vllm_sgl.model.feature_cache import FeatureCache
from vllm_sgl.prune.rewrite import prune_prompt
from vllm_sgl.visual.items import visual_counts


def features(rows, value=0.0):
    return torch.full((rows, 4), value)  # 16 bytes a row


def test_unknown_image_is_a_miss():
    cache = FeatureCache(1024)
    assert cache.get(b"a") is None
    assert (cache.hits, cache.misses, len(cache), cache.nbytes) == (0, 1, 0, 0)


def test_kept_features_come_back_as_a_copy_of_their_own():
    cache = FeatureCache(1024)
    batch = torch.arange(16.0).view(4, 4)
    cache.put(b"a", batch[1:3])
    kept = cache.get(b"a")
    assert kept.equal(torch.arange(4.0, 12.0).view(2, 4))
    assert kept.untyped_storage().nbytes() == kept.nbytes == cache.nbytes  # not the whole batch
    assert (cache.hits, cache.misses) == (1, 0)


def test_bytes_never_exceed_the_capacity():
    cache = FeatureCache(100)
    for i, rows in enumerate([3, 1, 2, 4, 1, 6, 2]):
        cache.put(bytes([i]), features(rows))
        assert cache.nbytes <= 100
        assert cache.nbytes == sum(entry.nbytes for entry in cache._entries.values())


def test_least_recently_used_image_is_dropped_first():
    cache = FeatureCache(3 * 16)
    for name in (b"a", b"b", b"c"):
        cache.put(name, features(1))
    cache.get(b"a")
    cache.put(b"d", features(2))  # two must go: b, then c
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, False, True]


def test_image_as_large_as_the_cache_is_kept_a_larger_one_is_not():
    cache = FeatureCache(32)
    cache.put(b"small", features(1))
    cache.put(b"large", features(3))
    assert cache.get(b"large") is None
    assert cache.get(b"small") is not None
    cache.put(b"exact", features(2))
    assert cache.get(b"exact") is not None
    assert len(cache) == 1


def test_image_that_is_there_already_counts_once():
    cache = FeatureCache(64)
    cache.put(b"a", features(1, 1.0))
    cache.put(b"a", features(1, 2.0))
    assert (len(cache), cache.nbytes) == (1, 16)


def test_zero_capacity_keeps_nothing():
    cache = FeatureCache(0)
    cache.put(b"a", features(1))
    assert cache.get(b"a") is None
    assert len(cache) == 0


def test_a_cache_that_is_cleared_takes_new_features():
    cache = FeatureCache(64)
    cache.put(b"a", features(4, 1.0))
    cache.clear()
    assert (cache.get(b"a"), len(cache), cache.nbytes) == (None, 0, 0)
    cache.put(b"a", features(4, 2.0))
    assert cache.get(b"a").equal(features(4, 2.0))


@pytest.fixture(scope="module")
def uncached(qwen2_pair):
    engines = Engines(qwen2_pair, sgl={"feature_cache": 0})
    yield engines
    engines.shutdown()


async def test_one_encoder_run_serves_questions_and_the_consistency_pass(engines, monkeypatch):
    encoded = Encoded(monkeypatch, engines.small)
    for question in ("What is written on the sign?", "Who?", "Read the number."):
        outcome = await engines.walk(
            engines.render(question, (300, 200), seed=40), max_tokens=4, sgl_exit_threshold=0.0
        )
        assert outcome.report.consistency is not None
    assert encoded == [7]


async def test_one_encoder_run_serves_every_mask_in_the_large_model(engines, monkeypatch):
    encoded = Encoded(monkeypatch, engines.large)
    prompt = engines.render("Who?", (300, 200), seed=41)
    for mask in ([1, 2], [2, 3], [50, 111]):
        kept = [torch.tensor(mask)]
        answer = await engines.answer_large(prune_prompt(prompt, kept), max_tokens=3)
        assert_same_answer(answer, engines.large_reference.generate(*inputs(prompt), 3, keep=kept))
    assert encoded == [7]


async def test_only_the_unknown_image_of_a_request_is_encoded(engines, monkeypatch):
    encoded = Encoded(monkeypatch, engines.large)
    known, both = (
        engines.render("Who?", *sizes, seed=42) for sizes in ([(112, 112)], [(112, 112), (120, 240)])
    )
    assert known["mm_hashes"]["image"] == both["mm_hashes"]["image"][:1]
    for prompt in (known, both):
        kept = [torch.arange(count // 2) for count in visual_counts(prompt)]
        answer = await engines.answer_large(prune_prompt(prompt, kept), max_tokens=3)
        assert_same_answer(answer, engines.large_reference.generate(*inputs(prompt), 3, keep=kept))
    assert encoded == [1, 3]


async def test_unknown_images_of_a_batch_are_encoded_together(engines, monkeypatch):
    encoded = Encoded(monkeypatch, engines.large)
    sizes = [(112, 112), (120, 240), (240, 120)]
    middle = engines.render("Who?", sizes[1], seed=47)
    three = engines.render("Who?", *sizes, seed=46)
    assert middle["mm_hashes"]["image"] == three["mm_hashes"]["image"][1:2]
    for prompt in (middle, three):
        kept = [torch.arange(1, count, 3) for count in visual_counts(prompt)]
        answer = await engines.answer_large(prune_prompt(prompt, kept), max_tokens=3)
        assert_same_answer(answer, engines.large_reference.generate(*inputs(prompt), 3, keep=kept))
    assert encoded == [3, 1 + 3]


async def test_same_image_twice_in_a_batch_is_encoded_once(engines, monkeypatch):
    encoded = Encoded(monkeypatch, engines.large)
    prompt = engines.render("Who?", (112, 112), seed=44)
    masks = [[torch.tensor(mask)] for mask in ([0, 5], [3], [7, 8, 9])]
    answers = await asyncio.gather(*(engines.answer_large(prune_prompt(prompt, kept), 3) for kept in masks))
    for kept, answer in zip(masks, answers, strict=True):
        assert_same_answer(answer, engines.large_reference.generate(*inputs(prompt), 3, keep=kept))
    assert encoded == [1]


async def test_without_a_cache_answers_are_the_same(uncached, monkeypatch):
    small, large = (Encoded(monkeypatch, engine) for engine in (uncached.small, uncached.large))
    prompt = uncached.render("What is written on the sign?", (112, 112), (120, 240), seed=45)
    outcome = await uncached.walk(prompt, max_tokens=4, sgl_exit_threshold=1.0)
    answer = await uncached.answer_large(outcome.prompt, max_tokens=4)
    kept = outcome.report.kept
    assert_same_answer(answer, uncached.large_reference.generate(*inputs(prompt), 4, keep=kept))
    await uncached.answer_large(prune_prompt(prompt, [torch.tensor([1]), torch.tensor([2])]), max_tokens=4)
    assert sum(large) == 2 * (1 + 3)  # each image, each time
    assert sum(small) >= 1 + 3
    assert len(uncached.large.runner.model._features) == 0
