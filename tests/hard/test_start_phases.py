"""Processes of a server that starts, stopped, continued and killed; and a server that ends while its small
engine is started again."""

import subprocess
import time

import psutil
import pytest

from tests.hard.clients import body, busy
from tests.hard.engines import SMALL_RUNS, small_engine
from tests.hard.scale import say
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

END_WITHIN = 20
#: Of one that serves, whatever its small engine does.
SERVER_ENDS_WITHIN = 5
UP = "Application startup complete"


@pytest.fixture
def starting(qwen2_pair, tmp_path):
    """(process, its log, the small engine's core process) of a server whose large engine starts now."""
    log = tmp_path / "log"
    small, large = map(str, qwen2_pair)
    command = vllm("serve", large, f"--port={free_port()}", f"--sgl-small={small}", *COMMON_FLAGS)
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        found = poll(lambda: SMALL_RUNS.search(log.read_text()), START_TIMEOUT, "a small engine")
        yield process, log, psutil.Process(int(found[1]))
    finally:
        kill_group(process)


def test_small_engine_killed_while_the_large_one_starts(starting):
    process, log, small = starting
    family = psutil.Process(process.pid).children(recursive=True)
    small.kill()
    code = process.wait(START_TIMEOUT)
    last = log.read_text().strip().splitlines()[-1]
    say(f"small engine killed while the large one starts: {code}, {last[:200]}")
    assert code not in (0, None)
    assert "small engine" in log.read_text()
    assert not psutil.wait_procs(family, timeout=END_WITHIN)[1]


def test_small_engine_stopped_and_continued_while_the_large_one_starts(starting):
    process, log, small = starting
    with frozen(small):
        poll(lambda: "changes three settings" in log.read_text(), START_TIMEOUT, "a large engine")
        time.sleep(5)
        assert process.poll() is None
        assert UP not in log.read_text()
    poll(lambda: UP in log.read_text(), START_TIMEOUT, "a server")


def test_server_ends_while_its_small_engine_is_started_again(qwen2_pair, tmp_path):
    flags = [f"--sgl-small={qwen2_pair[0]}", "--sgl-break-even=off", "--sgl-follow-ups=off"]
    with Server(qwen2_pair[1], tmp_path / "log", flags) as server:
        load = busy(server, 4, lambda client, turn: body(server, "Who?", client, max_tokens=60))
        with load as clients:
            known = {process.pid for process in server.descendants()}
            small_engine(server).kill()
            poll(lambda: {p.pid for p in server.descendants()} - known, START_TIMEOUT, "another engine")
            poll(lambda: len(clients.results) > 8, REQUEST_TIMEOUT, "requests that are answered")
            family = server.descendants()
            sent = time.monotonic()
            assert server.terminate() == 0
            say(f"ended while the small engine started again, after {time.monotonic() - sent:.1f} s")
            assert time.monotonic() - sent < SERVER_ENDS_WITHIN
            assert clients.join(END_WITHIN)
    assert not psutil.wait_procs(family, timeout=END_WITHIN)[1]
