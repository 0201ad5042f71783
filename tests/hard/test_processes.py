"""Every process stopped, continued and killed, at every phase, under load. One server, in this order."""

import random
import signal
import time

import psutil
import pytest

from tests.hard.clients import body, busy, connect, post
from tests.hard.engines import large_engine, small_engine, small_engines
from tests.hard.questions import Reference, questions
from tests.hard.scale import count, say
from tests.support.server import REQUEST_TIMEOUT, START_TIMEOUT, Server, frozen, poll

CLIENTS = 8
#: Seconds without an answer after which the guide counts as silent.
SILENT = 3
#: Seconds for a server whose large engine died to end by itself.
END_WITHIN = 20


@pytest.fixture(scope="module")
def server(qwen2_pair, tmp_path_factory):
    flags = [
        f"--sgl-small={qwen2_pair[0]}", "--sgl-break-even=off", f"--sgl-guide-timeout={SILENT}",
        "--sgl-guide-memory=0", "--sgl-follow-ups=off",
    ]  # fmt: skip
    with Server(qwen2_pair[1], tmp_path_factory.mktemp("processes") / "log", flags) as running:
        yield running


@pytest.fixture(scope="module")
def reference(server):
    return Reference(server, questions(16, seed=3))


@pytest.fixture
def load(server, reference):
    """Clients at work; when the test is over, all that they were told must be right."""

    def asked(client, turn):
        return reference.questions[(5 * client + turn) % len(reference.questions)]

    with busy(server, CLIENTS, lambda client, turn: asked(client, turn).body(server)) as clients:
        poll(lambda: len(clients.results) >= CLIENTS, REQUEST_TIMEOUT, "load on the server")
        yield clients
    ways = reference.check_all([asked(*result.turn) for result in clients.results], clients.results)
    slowest = max(result.ended - result.sent for result in clients.results)
    say(f"{len(clients.results)} requests, all right: {dict(ways)}; slowest {slowest:.1f} s")


def guided(server):
    with connect(server) as http:
        result = post(http, body(server, "Who?", 1, max_tokens=2))
    return result.body["sgl"]["decision"] == "prune"


def more(load, requests=2 * CLIENTS):
    """Wait for further requests to be answered."""
    before = len(load.results)
    poll(lambda: len(load.results) >= before + requests, REQUEST_TIMEOUT, "requests that are answered")


def test_small_engine_stopped_and_continued(server, load):
    with frozen(small_engine(server)):
        poll(lambda: "goes on unguided" in server.log_text() or server.metrics().total("sgl:guide_up") == 0,
             REQUEST_TIMEOUT, "a guide that counts as silent")  # fmt: skip
        more(load)  # nobody waits for it any more
    poll(lambda: guided(server), REQUEST_TIMEOUT, "a guide that answers again")
    more(load)


def test_large_engine_stopped_and_continued(server, load):
    with frozen(large_engine(server)):
        time.sleep(4)
    more(load)
    assert guided(server)


def test_both_engines_stopped_and_continued(server, load):
    with frozen(small_engine(server)), frozen(large_engine(server)):
        time.sleep(2 * SILENT)
    poll(lambda: guided(server), REQUEST_TIMEOUT, "a guide that answers again")
    more(load)


@pytest.mark.parametrize("number", range(count(ci=1, full=3)))
def test_small_engine_killed(server, load, number):
    time.sleep(random.Random(number).random())
    small = small_engine(server)
    starts = len(small_engines(server))
    small.kill()
    more(load)
    poll(lambda: len(small_engines(server)) > starts, START_TIMEOUT, "another small engine")
    poll(lambda: guided(server), START_TIMEOUT, "a guide that answers again")
    assert small_engine(server).pid != small.pid
    more(load)


def test_small_engine_killed_while_it_is_started_again(server, load):
    known = {process.pid for process in server.descendants()}
    small_engine(server).kill()

    def newcomer():
        cores = [p for p in server.descendants() if p.pid not in known and "EngineCore" in p.name()]
        return cores[0] if cores else None

    poll(newcomer, START_TIMEOUT, "a small engine that starts").kill()
    more(load)
    poll(lambda: guided(server), START_TIMEOUT, "a guide that answers again")
    more(load)


def test_large_engine_killed(server, reference):
    """Without it there is no server: everybody is told, and all of it ends."""
    family = server.descendants()
    with busy(server, CLIENTS, lambda client, turn: reference.questions[turn % 16].body(server)) as clients:
        poll(lambda: len(clients.results) >= CLIENTS, REQUEST_TIMEOUT, "load on the server")
        large_engine(server).send_signal(signal.SIGKILL)
        killed = time.monotonic()
        server.wait(END_WITHIN)
        say(f"large engine killed: the server ended after {time.monotonic() - killed:.1f} s")
        assert clients.join(END_WITHIN)
    assert not psutil.wait_procs(family, timeout=END_WITHIN)[1]
