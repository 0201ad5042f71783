"""The small engine starts in a thread of its own, beside the large one; with engines that are made up."""

import threading
from types import SimpleNamespace

import pytest

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine import beside, start
from vllm_sgl.engine.beside import StartingGuide
from vllm_sgl.engine.start import SmallEngines

CONFIG = SGLConfig(small="s")
#: Seconds; whatever hangs ends then.
LONG = 10


class Engines:
    """A start that goes on until it is told to end; its process runs once it may."""

    def __init__(self, planned=True):
        self.planned = planned
        self.process, self.goes_on = threading.Event(), threading.Event()
        self.error = None
        self.stopped = []
        self.begun = threading.Event()
        self.given_up = 0

    def start_guide(self, engines, config, patient):
        assert (engines, config, patient) == (self, CONFIG, True)
        self.begun.set()
        assert self.goes_on.wait(LONG)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(stop=self.stopped.append)

    def claim_processes(self):
        return self.process.is_set()

    def give_up(self):
        self.given_up += 1
        self.error = RuntimeError("killed")
        self.goes_on.set()


@pytest.fixture
def make(monkeypatch):
    def starting(engines):
        monkeypatch.setattr(beside, "start_guide", engines.start_guide)
        return StartingGuide(engines, CONFIG, True)

    return starting


def test_the_large_engine_may_start_once_the_process_is_there(make):
    engines = Engines()
    threading.Timer(0.05, engines.process.set).start()
    starting = make(engines)
    assert engines.begun.is_set()
    starting.refuse()  # nothing is known yet
    threading.Timer(0.05, engines.goes_on.set).start()
    starting.result().stop(3)
    assert engines.stopped == [3]


def test_where_memory_is_measured_it_is_waited_for(make):
    engines = Engines(planned=False)
    engines.goes_on.set()
    threads = threading.active_count()
    assert make(engines).result()
    assert threading.active_count() == threads


def test_a_start_that_fails_before_its_process_fails_at_once(make):
    engines = Engines()
    engines.error = RuntimeError("no such weights")
    engines.goes_on.set()
    with pytest.raises(RuntimeError, match="no such weights"):
        make(engines)


def test_a_start_that_fails_later_fails_when_it_is_asked(make):
    engines = Engines()
    engines.process.set()
    starting = make(engines)
    engines.error = TimeoutError("not in time")
    engines.goes_on.set()
    with pytest.raises(TimeoutError, match="not in time"):
        starting.result()


def test_an_interrupt_before_the_process_ends_the_start(make, monkeypatch):
    engines = Engines()

    def interrupted(seconds):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(beside.time, "sleep", interrupted)
    monkeypatch.setattr(beside, "start_guide", engines.start_guide)
    with pytest.raises(KeyboardInterrupt):
        StartingGuide(engines, CONFIG, True)
    assert engines.given_up


def test_giving_up_ends_a_start_and_what_was_started(make):
    engines = Engines()
    engines.process.set()
    make(engines).give_up()
    assert engines.given_up
    assert engines.stopped == []
    done = Engines()
    done.goes_on.set()
    starting = make(done)
    starting.result()
    starting.give_up()
    assert done.stopped == [0]


class Child:
    def __init__(self, pid):
        self.pid, self.killed = pid, False

    def kill(self):
        self.killed = True


def test_only_processes_of_the_small_engine_are_killed(monkeypatch):
    """Those of the large one are started beside it."""
    running = [Child(1)]
    monkeypatch.setattr(start, "active_children", lambda: list(running))
    engines = SmallEngines.__new__(SmallEngines)
    engines._others = engines._own = None
    assert not engines.claim_processes()
    engines._others = {1}
    assert not engines.claim_processes()
    running.append(Child(0))  # given up before it is claimed
    engines.give_up()
    assert running.pop().killed
    running.append(Child(2))
    assert engines.claim_processes()
    running.append(Child(3))
    engines.give_up()
    assert [child.killed for child in running] == [False, True, False]
    engines._own = None  # started again, when everything else runs
    engines.give_up()
    assert [child.killed for child in running] == [False, True, True]
