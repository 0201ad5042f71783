"""SIGTERM under load: every client gets an answer or an error at once, and the server ends."""

import random
import re
import signal
import subprocess
import time
from collections import Counter
from contextlib import ExitStack

import httpx
import psutil
import pytest

from tests.hard.clients import Result, body, busy
from tests.hard.scale import count, say
from tests.support.images import QUESTIONS
from tests.support.server import (
    COMMON_FLAGS,
    REQUEST_TIMEOUT,
    START_TIMEOUT,
    Server,
    free_port,
    frozen,
    kill_group,
    poll,
    vllm,
)

pytestmark = pytest.mark.alone

#: Seconds from SIGTERM to the end of the server, and to the last answer.
END_WITHIN = 5
#: Seconds before SIGTERM in which a request may be sent and not yet be read: the connection that it comes on
#: looks idle to the server, which closes those at once. So it is without SGL.
UNREAD_WITHIN = 0.5
#: Seconds from SIGTERM to the end of a server that starts: it may be importing, or loading.
START_UP_ENDS_WITHIN = 30
#: Seconds for what a dead server leaves behind to end, such as Python's resource tracker.
GONE_WITHIN = 10

#: kind of load, number of clients. CI has a few.
LOADS = [("guided", 16), ("hung", 8), ("exit", 1), ("text", 16), ("guided", 1), ("exit", 16), ("text", 1)]
TRIES = [(*LOADS[number % len(LOADS)], number) for number in range(count(ci=3, full=20))]


def make_body(server, kind, tokens=60):
    """(client, turn) -> a request that takes a while, or one that the small model may answer."""

    def make(client, turn):
        seeds = () if kind == "text" else (100 * client + turn,)
        options = {"max_tokens": tokens, "ignore_eos": kind != "exit"}
        if kind == "exit":
            options["vllm_xargs"] = {"sgl_exit_threshold": 0}
        return body(server, QUESTIONS[(client + turn) % len(QUESTIONS)], *seeds, **options)

    return make


def flags(pair, *more):
    small = f"--sgl-small={pair[0]}"
    return [small, "--sgl-break-even=off", "--sgl-guide-memory=0", "--sgl-follow-ups=off", *more]


def outcomes(results: list[Result]) -> dict[str, int]:
    """How many of each: status and finish reason, or the client library's error."""
    named = (f"{r.status} {r.finish_reason or ''}" if r.status else type(r.error).__name__ for r in results)
    return dict(Counter(map(str.strip, named)))


def answered(result: Result, terminated: float) -> bool:
    """Whether a client heard from the server, or of its end where the server had not read the request."""
    unread = isinstance(result.error, httpx.TransportError) and not isinstance(
        result.error, httpx.TimeoutException
    )
    return result.status in (200, 500, 503) or (unread and terminated - result.sent < UNREAD_WITHIN)


def terminate(server, within):
    """Send SIGTERM; (when, seconds until the server ended, its exit code)."""
    family = server.descendants()
    sent = time.monotonic()
    server.send_signal(signal.SIGTERM)
    code = server.wait(within)
    ended = time.monotonic() - sent
    assert not psutil.wait_procs(family, timeout=GONE_WITHIN)[1], "processes outlive the server"
    return sent, ended, code


@pytest.mark.parametrize(("kind", "clients", "number"), TRIES)
def test_server_ends_and_nobody_waits(qwen2_pair, tmp_path, kind, clients, number):
    with Server(qwen2_pair[1], tmp_path / "server.log", flags(qwen2_pair)) as server, ExitStack() as stack:
        if kind == "hung":
            server.small_engine().send_signal(signal.SIGSTOP)  # and never SIGCONT
        load = stack.enter_context(busy(server, clients, make_body(server, kind)))
        if kind != "hung":
            poll(lambda: len(load.results) >= clients, REQUEST_TIMEOUT, "load on the server")
        # Any phase of a request may be the one in which it hits.
        time.sleep(0.2 + random.Random(number).random())
        sent, seconds, code = terminate(server, END_WITHIN + 30)
        assert load.join(END_WITHIN), "clients still wait for an answer"
    under_way = [result for result in load.results if result.sent < sent < result.ended]
    say(f"{clients} x {kind}: ended with {code} after {seconds:.2f} s; under way: {outcomes(under_way)}")
    assert seconds < END_WITHIN
    assert code == 0
    assert under_way
    assert all(answered(result, sent) for result in under_way)
    before = [result for result in load.results if result.ended < sent]
    assert all(result.status == 200 for result in before)


def running(server):
    """Requests that the large engine works on now."""
    return server.metrics().total("vllm:num_requests_running")


def test_draining_server_answers_what_it_has_begun(qwen2_pair, tmp_path):
    drain = 120
    options = flags(qwen2_pair, f"--shutdown-timeout={drain}")
    with (
        Server(qwen2_pair[1], tmp_path / "server.log", options) as server,
        # Long answers: nearly all of a request's time is the engines'.
        busy(server, 16, make_body(server, "guided", tokens=400)) as load,
    ):
        # Clients ask in step: not while the next images of most of them are still being processed.
        poll(lambda: running(server) > 12, timeout=drain, what="load on the engines")
        sent, seconds, code = terminate(server, drain)
        assert load.join(END_WITHIN)
    under_way = [result for result in load.results if result.sent < sent < result.ended]
    say(f"drain: ended with {code} after {seconds:.2f} s; under way: {outcomes(under_way)}")
    assert code == 0
    answered = [result for result in under_way if result.status == 200]
    assert all(result.finish_reason == "length" for result in answered)
    # Whose image was still being processed had not begun; so it is without SGL.
    assert len(answered) > len(under_way) // 2
    assert all(result.status in (200, 500, 503) for result in under_way)


def start_up_log(process, log, text):
    """Wait until the log of a server that starts says this."""

    def said():
        assert process.poll() is None, log.read_text()[-3000:]
        return text in log.read_text()

    poll(said, START_TIMEOUT, f"{text!r} in {log}")


@pytest.mark.parametrize(
    ("text", "delay", "hung"),
    [("SGL memory", 4, False), ("changes three settings", 3, True), ("SGL memory", 0, False)][
        : count(ci=2, full=3)
    ],
    ids=["both start", "guide hangs", "small starts"][: count(ci=2, full=3)],
)
def test_server_that_starts_ends(qwen2_pair, tmp_path, text, delay, hung):
    log = tmp_path / "server.log"
    command = vllm("serve", str(qwen2_pair[1]), f"--port={free_port()}", *COMMON_FLAGS, *flags(qwen2_pair))
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        with ExitStack() as stack:
            if hung:
                start_up_log(process, log, "guide engine runs in process")
                pid = int(re.search(r"runs in process (\d+)", log.read_text())[1])
                stack.enter_context(frozen(psutil.Process(pid)))
            start_up_log(process, log, text)
            time.sleep(delay)
            family = psutil.Process(process.pid).children(recursive=True)
            sent = time.monotonic()
            process.terminate()
            process.wait(START_UP_ENDS_WITHIN)
            say(f"start-up, {text!r}: ended after {time.monotonic() - sent:.2f} s")
            assert not psutil.wait_procs(family, timeout=GONE_WITHIN)[1], "processes outlive the server"
    finally:
        kill_group(process)
    assert "Application startup complete" not in log.read_text()
