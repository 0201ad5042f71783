"""Sharing one device between two engines: the arithmetic, over made-up configs and a made-up device."""

from types import SimpleNamespace

import pytest
import torch

from vllm_sgl.host import memory
from vllm_sgl.host.memory import GIB, RESERVE, SMALL_KV_MOST, apply, plan, sequence_bytes

MIB = 1 << 20


def config(*, weights, layers=24, context=4096, utilization=0.9, kv=None, features=256 * MIB):
    """2 * 8 KV heads * 128 * 2 bytes = 4 KiB a token and layer."""
    model = SimpleNamespace(
        dtype=torch.bfloat16,
        max_model_len=context,
        get_num_kv_heads=lambda parallel: 8,
        get_head_size=lambda: 128,
        get_num_layers=lambda parallel: layers,
    )
    cache = SimpleNamespace(gpu_memory_utilization=utilization, kv_cache_memory_bytes=kv, block_size=16)
    return SimpleNamespace(
        model_config=model,
        cache_config=cache,
        parallel_config=SimpleNamespace(tensor_parallel_size=1),
        additional_config={"sgl": {"small": "S", "feature_cache": features}},
        weights=weights,
    )


@pytest.fixture
def device(monkeypatch):
    """Sets up a device of so many bytes."""

    def make(kind, total, used=0):
        monkeypatch.setattr(memory, "weight_bytes", lambda config: config.weights)
        ram = SimpleNamespace(total=total, available=total - used, used=used)
        monkeypatch.setattr(memory, "psutil", SimpleNamespace(virtual_memory=lambda: ram))
        platform = SimpleNamespace(is_cpu=lambda: kind == "cpu", get_device_total_memory=lambda: total)
        monkeypatch.setattr(memory, "current_platform", platform)

    return make


def small(**changes):
    return config(**{"weights": 4 * GIB, "layers": 16, **changes})


def large(**changes):
    return config(**{"weights": 50 * GIB, "layers": 48, "context": 8192, **changes})


def test_bytes_of_one_sequence():
    assert sequence_bytes(small()) == 4096 * 16 * 4096
    assert sequence_bytes(small(context=4097)) == 4096 * 16 * (4096 + 16)  # whole blocks


def test_auto_gives_the_small_engine_sixteen_sequences(device):
    device("cuda", 80 * GIB)
    short = small(context=2048)
    found = plan(large(), short, "auto")
    assert found.small_kv == 16 * sequence_bytes(short) == 2 * GIB
    assert found.small_total == 4 * GIB + 256 * MIB + RESERVE["cuda"] + 2 * GIB
    assert found.large_kv is None
    # vLLM sizes the KV cache to fill its share, so the room for each engine's features is outside of it.
    assert found.small_share == pytest.approx((found.small_total - 256 * MIB) / (80 * GIB))
    both = found.small_share + found.large_share + 2 * 256 * MIB / (80 * GIB)
    assert both == pytest.approx(0.9)


def test_auto_is_bounded_but_holds_one_sequence(device):
    device("cuda", 80 * GIB)
    long = small(context=65536, weights=GIB)
    assert plan(large(weights=40 * GIB), long, "auto").small_kv == SMALL_KV_MOST["cuda"]
    assert SMALL_KV_MOST["cuda"] < 16 * sequence_bytes(long)
    longer = small(context=4 * 65536, weights=GIB)
    assert plan(large(weights=30 * GIB), longer, "auto").small_kv == sequence_bytes(longer) == 16 * GIB


@pytest.mark.parametrize("asked", [0.125, 10 * GIB], ids=["share", "bytes"])
def test_asked_share_is_everything_the_small_engine_gets(device, asked):
    device("cuda", 80 * GIB)
    found = plan(large(), small(), asked)
    assert found.small_total == 10 * GIB
    assert found.small_kv == 10 * GIB - 4 * GIB - 256 * MIB - RESERVE["cuda"]
    assert found.small_share == pytest.approx(0.125 - 256 * MIB / (80 * GIB))


def test_cpu_counts_what_others_use_and_hands_out_bytes(device):
    device("cpu", 64 * GIB, used=4 * GIB)
    huge = large(weights=20 * GIB, utilization=0.75)
    found = plan(huge, small(features=0), "auto")
    assert found.small_kv == SMALL_KV_MOST["cpu"] == GIB
    assert found.large_kv == 48 * GIB - 4 * GIB - found.small_total - (20 * GIB + 256 * MIB + RESERVE["cpu"])


@pytest.mark.parametrize("asked", ["auto", 0.5, 20 * GIB])
def test_users_own_kv_cache_of_the_small_engine_stands(device, asked):
    device("cuda", 80 * GIB)
    found = plan(large(), small(), asked, fixed_kv=3 * GIB)
    assert found.small_kv == 3 * GIB
    assert found.small_total == 4 * GIB + 256 * MIB + RESERVE["cuda"] + 3 * GIB


def test_users_own_kv_cache_of_the_large_engine_stands(device):
    device("cpu", 64 * GIB)
    found = plan(large(weights=20 * GIB, kv=5 * GIB), small(), "auto")
    assert found.large_kv == 5 * GIB


@pytest.mark.parametrize(
    ("kind", "total", "changes", "asked"),
    [
        ("cuda", 60 * GIB, {}, "auto"),
        ("cuda", 80 * GIB, {}, 6 * GIB),
        ("cuda", 80 * GIB, {}, 0.05),
        ("cuda", 80 * GIB, {}, 30 * GIB),
        ("cpu", 64 * GIB, {"kv": 20 * GIB}, "auto"),
        ("cpu", 64 * GIB, {"kv": MIB, "weights": 10 * GIB}, "auto"),
        ("cuda", 80 * GIB, {"context": 262144}, "auto"),
    ],
    ids=[
        "device too small", "asked for less than the weights", "share less than the weights",
        "nothing left for the large one", "fixed KV cache too large", "fixed KV cache below a sequence",
        "context too long",
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_the_numbers(device, kind, total, changes, asked):
    device(kind, total)
    with pytest.raises(ValueError, match="not enough memory for both engines on one device") as error:
        plan(large(**changes), small(), asked)
    assert all(
        part in str(error.value)
        for part in ("small: weights 4.00 GiB", "large: weights", "Change --sgl-small-memory", "4096 tokens")
    )


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_plan_is_written_where_vllm_reads_it(device, kind):
    device(kind, 96 * GIB)
    big, little = large(), small()
    found = plan(big, little, "auto")
    apply(found, big, little)
    if kind == "cpu":
        assert little.cache_config.kv_cache_memory_bytes == found.small_kv
        assert big.cache_config.kv_cache_memory_bytes == found.large_kv
        assert big.cache_config.gpu_memory_utilization == 0.9
    else:
        assert little.cache_config.gpu_memory_utilization == found.small_share
        assert big.cache_config.gpu_memory_utilization == found.large_share
        assert big.cache_config.kv_cache_memory_bytes is None
