"""Sharing one device between two engines: the arithmetic, over made-up engines and a made-up device."""

import re

import pytest

from benchmarks.true_size import INTERNVL2
from vllm_sgl.engine.memory import (
    CONTEXT,
    GIB,
    KIB,
    LARGE_KV_MOST,
    MIB,
    RESERVE,
    SLACK,
    SMALL_KV_MOST,
    Engine,
    plan,
    size,
    usable,
)
from vllm_sgl.host.start.device import Device

#: KV cache of one token in the made-up small and large model.
SMALL_TOKEN, LARGE_TOKEN = 64 * KIB, 192 * KIB


def gpu(total=80 * GIB, used=0):
    return Device("gpu", "each cuda device", total, total - used)


def cpu(total=64 * GIB, used=0):
    return Device("cpu", "NUMA node 0", total, total - used)


def small(weights=4 * GIB, tokens=4096, **changes):
    return Engine(weights, tokens * SMALL_TOKEN, tokens, 256, 256 * MIB, **changes)


def large(weights=50 * GIB, tokens=8192, sequences=256, **changes):
    return Engine(weights, tokens * LARGE_TOKEN, tokens, sequences, 256 * MIB, **changes)


def fixed(engine, kind):
    return int(engine.weights * SLACK) + engine.features + RESERVE[kind]


def test_auto_gives_the_small_engine_sixteen_sequences():
    short = small(tokens=2048)
    found = plan(gpu(), 0.9, short, large())
    assert found.small_kv == 16 * short.sequence == 2 * GIB
    assert found.small_total == fixed(short, "gpu") + 2 * GIB
    # vLLM sizes the KV cache to fill its share, so the room for each engine's features is outside of it.
    assert found.small_share == pytest.approx((found.small_total - 256 * MIB) / (80 * GIB))
    both = found.small_share + found.large_share + 2 * 256 * MIB / (80 * GIB)
    assert both == pytest.approx(0.9)
    assert found.large_total == pytest.approx(72 * GIB - found.small_total, abs=1)


def test_auto_is_bounded_but_holds_one_sequence():
    long = small(tokens=65536, weights=GIB)
    assert plan(gpu(), 0.9, long, large(weights=40 * GIB)).small_kv == SMALL_KV_MOST["gpu"]
    assert SMALL_KV_MOST["gpu"] < 16 * long.sequence
    longer = small(tokens=4 * 65536, weights=GIB)
    assert plan(gpu(), 0.9, longer, large(weights=30 * GIB)).small_kv == longer.sequence == 16 * GIB


def test_auto_shrinks_where_memory_is_short():
    engines = small(), large(weights=50 * GIB, tokens=8192)
    roomy = plan(gpu(80 * GIB), 0.9, *engines)
    tight = plan(gpu(77 * GIB), 0.9, *engines)
    assert engines[0].sequence <= tight.small_kv < roomy.small_kv
    assert tight.large_kv == engines[1].sequence
    assert tight.small_total + tight.large_total <= 77 * GIB * 0.9


@pytest.mark.parametrize("asked", [0.125, 10 * GIB], ids=["share", "bytes"])
def test_asked_share_is_everything_the_small_engine_gets(asked):
    found = plan(gpu(), 0.9, small(), large(), asked)
    assert found.small_total == 10 * GIB
    assert found.small_kv == 10 * GIB - fixed(small(), "gpu")
    assert found.small_share == pytest.approx(0.125 - 256 * MIB / (80 * GIB))


def test_gpu_in_use_by_others_gives_what_is_free():
    """vLLM refuses to start an engine whose share is more than what is free."""
    found = plan(gpu(used=10 * GIB), 0.95, small(), large(weights=40 * GIB))
    free = 70 * GIB - 2 * CONTEXT
    assert usable(gpu(used=10 * GIB), 0.95) == free < 0.95 * 80 * GIB
    assert found.small_total + found.large_total == pytest.approx(free, abs=1)
    assert (found.small_share + found.large_share) * 80 * GIB < free


def test_cpu_takes_a_modest_cache_by_default():
    tiny = large(weights=GIB, tokens=2048, sequences=4)
    found = plan(cpu(), 0.9, small(weights=GIB), tiny)
    assert found.large_kv == 4 * tiny.sequence == 3 * GIB // 2  # as many sequences as run at once
    assert found.small_kv == SMALL_KV_MOST["cpu"] == GIB
    many = large(weights=GIB, sequences=256)
    assert plan(cpu(), 0.9, small(weights=GIB), many).large_kv == LARGE_KV_MOST["cpu"] == 4 * GIB
    long = large(weights=GIB, tokens=65536)
    assert plan(cpu(), 0.9, small(weights=GIB), long).large_kv == long.sequence == 12 * GIB


def test_cpu_counts_what_others_use():
    assert usable(cpu(64 * GIB, used=4 * GIB), 0.75) == 44 * GIB
    assert usable(cpu(64 * GIB, used=60 * GIB), 0.75) == 0
    engines = small(weights=GIB), large(weights=8 * GIB)
    alone = plan(cpu(24 * GIB), 0.92, *engines)
    assert alone.large_kv == 4 * GIB
    beside = plan(cpu(24 * GIB, used=7 * GIB), 0.92, *engines)
    assert engines[1].sequence < beside.large_kv < 4 * GIB
    assert beside.small_total + beside.large_total <= 24 * GIB * 0.92 - 7 * GIB


@pytest.mark.parametrize(
    ("device", "used"),
    [(24 * GIB, 12 * GIB), (6 * GIB, GIB)],
    ids=["24 GiB, half in use", "a 6 GiB container"],
)
def test_the_shipped_pair_starts_by_the_shortest_command(device, used):
    """Weights of 16 and 8 MB; tokens of 1.5 and 0.5 KiB."""
    shipped = Engine(8 * MIB, 32768 * 512, 32768, 256, 256 * MIB)
    found = plan(cpu(device, used), 0.92, shipped, Engine(16 * MIB, 32768 * 1536, 32768, 256, 256 * MIB))
    assert found.large_kv >= 8 * 32768 * 1536
    assert found.warning is None


def test_the_readmes_pair_starts_on_a_gpu_of_80_gb():
    """With everything at its default, by an H100's own figure and the models' published sizes."""
    engines = []
    for name in ("2B", "26B"):
        model, tokens = INTERNVL2[name], 32768
        assert model.decoder.max_position_embeddings == tokens
        sequence = model.decoder.kv_bytes(tokens)
        engines.append(Engine(2 * model.parameters(), sequence, tokens, 1024, GIB))
    found = plan(gpu(81559 * MIB, used=600 * MIB), 0.92, *engines)
    assert found.small_kv >= engines[0].sequence
    assert found.large_kv >= engines[1].sequence


def test_users_own_kv_caches_stand():
    assert plan(gpu(), 0.9, small(kv=3 * GIB), large(), 0.5).small_kv == 3 * GIB
    assert plan(cpu(), 0.9, small(), large(weights=20 * GIB, kv=5 * GIB)).large_kv == 5 * GIB


def test_both_caches_fixed_by_the_user_only_warn():
    """Working memory is an estimate; vLLM checks what the user fixed."""
    engines = small(weights=GIB, kv=GIB), large(weights=GIB, kv=2 * GIB)
    found = plan(cpu(24 * GIB, used=20 * GIB), 0.92, *engines)
    assert (found.small_kv, found.large_kv) == (GIB, 2 * GIB)
    assert "2.08 GiB usable" in found.warning
    assert "Both KV caches stay as you set them" in found.warning


@pytest.mark.parametrize(
    ("device", "changes", "asked"),
    [
        (gpu(60 * GIB), {}, "auto"),
        (gpu(used=30 * GIB), {}, "auto"),
        (gpu(), {}, 6 * GIB),
        (gpu(), {}, 0.05),
        (gpu(), {}, 30 * GIB),
        (cpu(), {"kv": 20 * GIB}, "auto"),
        (cpu(), {"kv": MIB, "weights": 10 * GIB}, "auto"),
        (gpu(), {"tokens": 262144}, "auto"),
    ],
    ids=[
        "device too small", "device in use", "asked for less than the weights", "share less than the weights",
        "nothing left for the large one", "fixed KV cache too large", "fixed KV cache below a sequence",
        "context too long",
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_the_numbers(device, changes, asked):
    with pytest.raises(ValueError, match=f"not enough memory for both engines on {device.name}") as error:
        plan(device, 0.9, small(), large(kv_from="--kv-cache-memory-bytes", **changes), asked)
    assert all(
        part in str(error.value)
        for part in (
            "small engine: weights 4.00 GiB", "large engine: weights", "4,096 tokens needs 256.0 MiB",
            f"{size(usable(device, 0.9))} usable", "Change --", "--sgl-small-memory", "--max-model-len",
        )
    )  # fmt: skip
    assert str(error.value).count("--kv-cache-memory-bytes") == 1


@pytest.mark.parametrize("kv", [1000, 5 * MIB])
def test_a_cache_that_is_too_small_names_the_setting_that_made_it_so(kv):
    name = "--sgl-small-args kv_cache_memory_bytes"
    with pytest.raises(ValueError, match=re.escape(f"Change {name}")) as error:
        plan(cpu(), 0.9, small(kv=kv, kv_from=name), large(weights=GIB))
    assert f"KV cache {size(kv)} ({kv // SMALL_TOKEN} tokens" in str(error.value)
    assert "--sgl-small-memory" not in str(error.value)  # it would change nothing


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.00 KiB"), (1000, "0.98 KiB"), (64 * KIB, "64.0 KiB"), (9 * MIB + 1, "9.00 MiB"),
        (512 * MIB, "512.0 MiB"), (GIB, "1.00 GiB"), (80 * GIB, "80.0 GiB"), (2000 * GIB, "2000.0 GiB"),
    ],
)  # fmt: skip
def test_sizes_say_something(count, text):
    assert size(count) == text
