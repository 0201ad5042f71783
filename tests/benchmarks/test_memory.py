"""`benchmarks.memory`: rows and words; the watching itself over a real child process."""

import subprocess
import sys

import pytest

from benchmarks import compare, memory
from benchmarks.support.memory import GIB, Peak, tree_bytes
from benchmarks.support.pair import QUICK, Measured, sides

MIB = 1 << 20


def measured(side, peak, kv=2):
    one = Measured(side, None, baseline=GIB, kv=kv * GIB)
    one.peak = (1 + peak) * GIB
    return one


def test_rows_are_less_the_baseline_and_the_kv_pools():
    row = memory.row(measured("plain", 50), published=True)
    assert row == {
        "side": "plain", "peak_gib": 50, "kv_pools_gib": 2, "without_kv_gib": 48, "published_gib": 51.60,
    }  # fmt: skip
    assert memory.row(measured("small", 5), published=True)["published_gib"] is None
    assert memory.row(measured("plain", 50), published=False)["published_gib"] is None


def test_what_the_small_engine_adds():
    plain, guided = (
        memory.row(measured(side, peak, kv), published=True)
        for side, peak, kv in (("plain", 50, 2), ("guided", 58, 5))
    )
    assert (
        memory.compared(plain, guided)
        == "the small engine adds 5.00 GiB without its KV pool (published: 2.64)"
    )


def test_more_memory_is_worse():
    results = [
        {
            "benchmark": "memory",
            "preset": "cpu",
            "rows": [memory._with_figures(memory.row(one, published=False))],
        }
        for one in (measured("plain", 50), measured("plain", 52), measured("plain", 51))
    ]
    (more,), (little,) = compare.changes(*results[:2]), compare.changes(results[0], results[2])
    assert compare.verdict(more, 1) == "worse"
    assert compare.verdict(little, 1) == "same"


def test_a_peak_of_a_child_and_its_child_is_seen():
    grandchild = "block = bytearray(200 * 2**20); print('up', flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        with Peak(lambda: tree_bytes(child.pid), every=0.01) as peak:
            assert child.stdout.readline() == "up\n"
        child.stdin.close()
    assert 200 * MIB < peak.bytes < 400 * MIB
    assert tree_bytes(child.pid) == 0


def test_kv_pools_of_a_side():
    assert QUICK.kv("guided") == QUICK.kv("plain") + QUICK.kv("small") > QUICK.kv("plain")
    assert QUICK.kv("default") == QUICK.kv("plain")


def test_a_gpu_has_one_layout():
    assert set(sides(cpu=True)) - set(sides(cpu=False)) == {"default"}
    for cpu in (True, False):
        assert (sides(cpu)[0], sides(cpu)[-1]) == ("plain", "guided")  # as the words about both take them


@pytest.mark.parametrize("preset", memory.PRESETS)
def test_only_a_quick_run_is_written_nowhere(preset):
    out = memory._parse(["--preset", preset]).out
    assert (out is None) == (preset == "quick")
