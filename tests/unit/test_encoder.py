"""What start-up profiles of a vision encoder, and how large the feature cache is: over made-up budgets."""

from types import SimpleNamespace

import pytest
import torch

from vllm_sgl.host.start import encoder
from vllm_sgl.host.start.encoder import FEATURES_MOST, feature_cache_bytes, profiled_tokens

MIB = 1 << 20


@pytest.fixture
def config(monkeypatch):
    """An engine with largest items of so many visual tokens, by modality, profiled so many at once."""

    def make(largest, items=None, *, sequences=4, hidden=1024, kind="cuda", sgl=None, **vision):
        budget = SimpleNamespace(
            mm_max_toks_per_item=largest,
            mm_max_items_per_batch=items,
            get_modality_with_max_tokens=lambda: max(largest, key=largest.get),
        )
        monkeypatch.setattr(encoder, "_budget", lambda config: budget)
        monkeypatch.setattr(encoder, "current_platform", SimpleNamespace(is_cpu=lambda: kind == "cpu"))
        model = SimpleNamespace(
            dtype=torch.bfloat16, get_inputs_embeds_size=lambda: hidden,
            hf_config=SimpleNamespace(vision_config=SimpleNamespace(**vision)),
        )  # fmt: skip
        return SimpleNamespace(
            model_config=model,
            scheduler_config=SimpleNamespace(max_num_seqs=sequences),
            additional_config={"sgl": {"small": "S", **(sgl or {})}},
        )

    return make


def test_profiled_is_the_modality_with_the_largest_items(config):
    assert profiled_tokens(config({"image": 3328, "video": 4096}, {"image": 9, "video": 2})) == 2 * 4096


def test_nothing_is_profiled_without_images(config):
    assert profiled_tokens(config({}, {})) == 0
    assert feature_cache_bytes(config({}, {})) == 0


def test_auto_has_room_for_the_largest_image_of_every_sequence(config):
    assert feature_cache_bytes(config({"image": 3328})) == 4 * 3328 * 1024 * 2
    assert feature_cache_bytes(config({"image": 3328}, sequences=8, hidden=2048)) == 8 * 3328 * 2048 * 2


def test_rows_with_features_of_several_layers(config):
    """A Qwen3-VL's, of its encoder's last layer and three more."""
    deep = config({"image": 3328}, deepstack_visual_indexes=[5, 11, 17])
    assert feature_cache_bytes(deep) == 4 * feature_cache_bytes(config({"image": 3328}))


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_auto_is_bounded(config, kind):
    """1,024 sequences of an InternVL2-26B would take 42 GB."""
    large = config({"image": 3328}, sequences=1024, hidden=6144, kind=kind)
    assert feature_cache_bytes(large) == FEATURES_MOST[kind] < 1024 * 3328 * 6144 * 2


@pytest.mark.parametrize(("asked", "size"), [("64MiB", 64 * MIB), (0, 0), ("2GiB", 2048 * MIB)])
def test_a_size_that_was_set_holds(config, asked, size):
    assert feature_cache_bytes(config({"image": 3328}, sgl={"feature_cache": asked})) == size


def test_without_sgl_there_is_no_cache(config):
    plain = config({"image": 3328})
    plain.additional_config = {}
    assert feature_cache_bytes(plain) == 0
