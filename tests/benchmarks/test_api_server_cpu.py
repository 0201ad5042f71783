"""`benchmarks.api_server_cpu`: CPU time by part, of a real process and of real threads; rows and refusals."""

import os
import threading
import time
from importlib import import_module

import pytest

from benchmarks.api_server_cpu.asking import SETTINGS, check, cpu_seconds
from benchmarks.api_server_cpu.clocks import timed
from benchmarks.api_server_cpu.parts import PLACES, REST, TOTAL, ZEROMQ
from benchmarks.api_server_cpu.rows import rows
from benchmarks.support.load import Reply
from benchmarks.support.workspace import BenchmarkError


def compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_part_is_counted_without_the_parts_inside():
    outer, inner = [], []
    inside = timed(compute, inner.append)

    def around():
        compute(0.02)
        inside(0.05)
        inside(0.05)
        time.sleep(0.2)  # no CPU time

    timed(around, outer.append)()
    assert inner == [pytest.approx(0.05, abs=0.02)] * 2
    assert outer == [pytest.approx(0.02, abs=0.02)]


def test_threads_count_for_themselves():
    spent = []
    timed_compute = timed(compute, spent.append)

    def both():
        thread = threading.Thread(target=timed_compute, args=(0.05,))
        thread.start()
        thread.join()

    outer = []
    timed(both, outer.append)()
    assert spent == [pytest.approx(0.05, abs=0.02)]
    assert outer[0] < 0.02


def test_an_error_passes_and_is_counted():
    spent = []
    with pytest.raises(ZeroDivisionError):
        timed(lambda: 1 / 0, spent.append)()
    assert len(spent) == 1


def test_a_process_has_the_cpu_time_that_it_used():
    before = cpu_seconds(os.getpid())
    compute(0.2)
    after = cpu_seconds(os.getpid())
    assert after.all - before.all == pytest.approx(0.2, abs=0.1)
    assert 0 <= after.zeromq <= after.all


@pytest.mark.parametrize("place", [place for places in PLACES.values() for place in places], ids=str)
def test_every_part_is_a_function_that_is_there(place):
    module, owner, name = place
    found = import_module(module)
    assert callable(getattr(getattr(found, owner) if owner else found, name))


def test_rows_are_medians_by_part():
    parts = (TOTAL, *PLACES, ZEROMQ, REST)
    rounds = [{one.name: dict.fromkeys(parts, value) for one in SETTINGS} for value in (1.0, 5.0, 2.0)]
    found = rows(SETTINGS, rounds)
    assert [row["part"] for row in found] == list(parts)
    assert set(found[0]) == {"part", *(one.name for one in SETTINGS)}
    assert all(value == 2.0 for row in found for name, value in row.items() if name != "part")


def test_a_reply_that_went_another_way_is_no_figure():
    def reply(sgl):
        return Reply(0.1, "text", {}, sgl)

    plain, pruned, twice = (next(one for one in SETTINGS if one.name == name) for name in (
        "plain", "R=0.35", "exit",
    ))  # fmt: skip
    check(plain, [reply(None)])
    check(pruned, [reply({"decision": "prune", "consistency": None})])
    check(twice, [reply({"decision": "exit", "consistency": 0.1})])
    for setting, sgl in [
        (plain, {"decision": "prune"}), (pruned, {"decision": "bypass"}), (twice, {"decision": "exit"}),
    ]:  # fmt: skip
        with pytest.raises(BenchmarkError, match="expected decision"):
            check(setting, [reply(sgl)])
