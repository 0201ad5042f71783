"""Where servers take turns on a device: who is started when, and what is asked of whom."""

import itertools
import json
from contextlib import contextmanager
from dataclasses import replace

import pytest

from benchmarks.serve import answers, benchmark
from benchmarks.serve.bench import Run
from benchmarks.serve.benchmark import Benchmark
from benchmarks.serve.components import Samples
from benchmarks.serve.presets import PRESETS
from benchmarks.serve.settings import Setting
from benchmarks.serve.sources import Pictures
from benchmarks.support.load import Reply
from benchmarks.support.pair import sides

ENVIRONMENT = {"machine": "two cores", "gpu": None, "versions": {}, "commit": "abc", "utc": "today"}


@pytest.fixture(scope="module")
def preset():
    """The smoke presets' sizes, controls and all; nothing is served."""
    quick = PRESETS["signs-quick"]
    asked, controls = Pictures((32, 32), 208, 4), (Setting("small"),)
    return replace(quick, asked=asked, together=False, rounds=2, loads={1: 2, 4: 4}, controls=controls)


class Workspace:
    work = None

    def describe(self):
        return ENVIRONMENT


class Server:
    def __init__(self, side):
        self.side = side


class Pair:
    """Stands for a pair; its servers are names."""

    def __init__(self, pair):
        self._pair = pair

    def __getattr__(self, name):
        return getattr(self._pair, name)

    def write(self, folder):
        pass

    def server(self, workspace, side, module):
        return Server(side)


class Bench:
    def __init__(self, workspace, preset):
        self._preset = preset

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def ready(self):
        events.append(("ready", ""))

    def load(self, server, step, requests, threshold):
        assert server.side == step.setting.side
        events.append(("load", server.side))
        first = self._preset.numbers(step)[0]
        return Run(step, first, len(requests), 2.0, 1, 1, 1, 1, 0.0, 0.0, None, None, 0.0)


events: list[tuple[str, str]] = []


def measure(self, server, preset, small):
    events.append(("measure", server.side))
    self.vision.append(1.0)
    for clients in preset.batches:
        for share in preset.shares:
            self.language[clients, share].append(1.0)
        self.consistency[clients].append(1.0)


@pytest.fixture(scope="module")
def ran(preset, tmp_path_factory):
    out = tmp_path_factory.mktemp("turns")

    @contextmanager
    def running(*servers):
        (server,) = servers
        events.append(("up", server.side))
        yield
        events.append(("down", server.side))

    def answer(server, preset, requests, xargs=None):
        events.append(("answer", server.side))
        return [Reply(1.0, "same", {}, None) for _ in requests]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "running", running)
        patch.setattr(benchmark.time, "sleep", lambda seconds: events.append(("rest", "default")))
        patch.setattr(benchmark, "Bench", Bench)
        patch.setattr(benchmark, "ask", lambda *arguments: None)
        patch.setattr(Samples, "measure", measure)
        patch.setattr(answers, "answer", answer)
        patch.setattr(answers, "check", lambda *arguments: events.append(("check", arguments[0].side)))
        Benchmark(Workspace(), "made up", replace(preset, pair=Pair(preset.pair)), out).run()
    return json.loads((out / "result.json").read_text())


def test_one_server_at_a_time_and_each_after_what_it_needs(ran, preset):
    ups = [side for event, side in events if event == "up"]
    assert ups == ["small", "plain", "default", "guided"]
    assert set(ups) == set(sides(preset.cpu))
    for side in ups:
        up, down = events.index(("up", side)), events.index(("down", side))
        assert all(where == side for _, where in events[up : down + 1])
    assert events.index(("measure", "plain")) < events.index(("load", "plain"))
    assert (
        events.index(("answer", "plain"))
        < events.index(("check", "guided"))
        < events.index(("load", "guided"))
    )


def test_nothing_follows_the_polling_worker_at_once(ran):
    after = [
        second for (event, side), second in itertools.pairwise(events) if (event, side) == ("load", "default")
    ]
    assert after
    assert set(after) == {("rest", "default")}


def test_every_step_is_measured(ran, preset):
    steps = [step for round in range(preset.rounds) for step in preset.steps(round)]
    assert sum(event == "load" for event, _ in events) == len(steps)
    assert ran["finished"]
    assert len(ran["rows"]) == len(preset.guided) * len(preset.loads)
    assert all(row["rounds"] == 2 for row in ran["rows"])
