"""The small engine hangs, then dies, under load; the server stays, and so does guidance, after a while. The
tests run in this order."""

import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.serve.asking import VISUAL, ask, stream, text
from tests.serve.test_load import QUESTIONS
from tests.support.server import frozen, poll

SEEDS = (1, 2, 3)
#: Bounds in seconds for what takes some on busy cores.
PROBED, STARTED, ENDED = 30, 180, 5


@pytest.fixture(scope="module")
def expected(fragile_server):
    """(question, seed) -> the answer to it, by decision."""
    return {
        (question, seed): {
            "prune": text(ask(fragile_server, question, seed)),
            "bypass": text(ask(fragile_server, question, seed, sgl={"enabled": 0})),
        }
        for question in QUESTIONS
        for seed in SEEDS
    }


def said(server, words):
    """How many lines of the log have these words."""
    return sum(words in line for line in server.log_text().splitlines())


def up(server):
    """What the server says of its guide, in both places."""
    status, headers, _ = server.get("/health")
    assert status == 200
    return {"up": True, "down": False}[headers["sgl-guide"]] and server.metrics().total("sgl:guide_up") == 1


def guided(server):
    return ask(server, "Who?", 1, max_tokens=2).sgl["decision"] == "prune"


def test_settings_from_additional_config(fragile_server):
    completion = ask(fragile_server, "Who?", 1)
    assert (completion.sgl["decision"], completion.sgl["kept_tokens"]) == ("prune", VISUAL // 2)
    assert up(fragile_server)


def test_silent_guide_is_left_alone_until_it_answers(fragile_server, clients, expected):
    with frozen(fragile_server.small_engine()):
        futures = {
            (question, 1): clients.submit(ask, fragile_server, question, 1, sgl={"exit_threshold": 0})
            for question in QUESTIONS[:4]
        }
        answers = {asked: future.result() for asked, future in futures.items()}
        reports = [completion.sgl for completion in answers.values()]
        assert {report["decision"] for report in reports} == {"bypass"}
        # The third silence is enough; whoever still waits then need not wait on.
        reasons = [report["reason"] for report in reports]
        waited = [report["guide_seconds"] for report in reports if report["reason"] == "guide_timeout"]
        assert all(5 <= seconds < 30 for seconds in waited)
        assert reasons.count("guide_timeout") >= 3
        assert set(reasons) <= {"guide_timeout", "guide_unwell"}
        assert not up(fragile_server)
        for question in QUESTIONS:
            completion = answers[question, 2] = ask(fragile_server, question, 2)
            assert completion.sgl["reason"] == "guide_unwell"
            assert completion.sgl["guide_seconds"] < 1
    for asked, completion in answers.items():
        assert text(completion) == expected[asked]["bypass"]
    poll(lambda: up(fragile_server), PROBED, what="a guide that answers a probe")
    assert guided(fragile_server)
    assert said(fragile_server, "SGL: the guide does not answer (3 times in a row") == 1
    assert said(fragile_server, "SGL: the guide answers again") == 1
    metrics = fragile_server.metrics()
    for reason in {completion.sgl["reason"] for completion in answers.values()}:
        counted = metrics.total("sgl:requests_total", decision="bypass", reason=reason)
        assert counted == sum(completion.sgl["reason"] == reason for completion in answers.values())


def test_what_a_full_guide_does_not_take_is_answered_at_once(fragile_server, expected):
    """16 places (COMMON_FLAGS), and 16 that wait; the guide stands still, so that nobody leaves."""
    asked = [*expected, *expected][:40]
    with frozen(fragile_server.small_engine()), ThreadPoolExecutor(len(asked)) as many:
        answers = list(many.map(lambda question: ask(fragile_server, *question), asked))
    for question, completion in zip(asked, answers, strict=True):
        assert text(completion) == expected[question]["bypass"]
    reports = [completion.sgl for completion in answers]
    busy = [report for report in reports if report["reason"] == "guide_busy"]
    assert 1 <= len(busy) <= len(asked) - 32
    assert all(report["guide_seconds"] < 1 for report in busy)
    assert {report["reason"] for report in reports} == {"guide_busy", "guide_timeout", "guide_unwell"}
    poll(lambda: guided(fragile_server), PROBED, what="a guide that answers")
    assert said(fragile_server, "(guide_busy; said once") == 1


def test_killed_guide_loses_no_request(fragile_server, clients, expected):
    small = fragile_server.small_engine()
    family = [small, *small.children(recursive=True)]
    asked = [*expected, *expected, *expected]
    futures = [clients.submit(ask, fragile_server, *question) for question in asked]
    poll(lambda: sum(future.done() for future in futures) >= 8, what="load on the server")
    small.kill()
    answers = [future.result() for future in futures]
    for question, completion in zip(asked, answers, strict=True):
        wanted = {"bypass": "guide_dead", "prune": None}[completion.sgl["decision"]]
        assert completion.sgl["reason"] == wanted
        assert text(completion) == expected[question][completion.sgl["decision"]]
    bypassed = [completion for completion in answers if completion.sgl["decision"] == "bypass"]
    assert bypassed
    assert not psutil.wait_procs(family, timeout=30)[1]


def test_killed_guide_is_started_again_in_the_memory_it_had(fragile_server, clients, expected):
    poll(lambda: up(fragile_server), STARTED, what="a small engine that was started again")
    futures = {question: clients.submit(ask, fragile_server, *question) for question in expected}
    for question, future in futures.items():
        completion = future.result()
        assert (completion.sgl["decision"], completion.sgl["reason"]) == ("prune", None)
        assert text(completion) == expected[question]["prune"]
    log = fragile_server.log_text()
    assert log.count("SGL: the small engine died") == log.count("SGL: the small engine runs again") == 1
    lines = [line for line in log.splitlines() if line.startswith("(SmallEngineCore")]
    first, again = [line.split("KV cache size:")[1] for line in lines if "KV cache size:" in line]
    assert again == first


def test_requests_are_answered_while_it_is_dead_and_idle(fragile_server, expected):
    asked = ("What is on the sign?", 2)
    before = fragile_server.metrics()
    fragile_server.small_engine().kill()
    poll(lambda: not up(fragile_server), what="a server that notices")
    whole = ask(fragile_server, *asked, sgl={"exit_threshold": 0})
    chunks = stream(fragile_server, *asked)
    after = fragile_server.metrics()
    for report in (whole.sgl, chunks[-1].sgl):
        assert (report["decision"], report["reason"]) == ("bypass", "guide_dead")
        assert report["kept_tokens"] == report["visual_tokens"] == VISUAL
        assert report["guide_seconds"] < 1
    assert text(whole) == expected[asked]["bypass"]
    labels = {"decision": "bypass", "reason": "guide_dead"}
    assert after.total("sgl:requests_total", **labels) == before.total("sgl:requests_total", **labels) + 2
    assert ask(fragile_server, "Who?").sgl["reason"] == "no_image"
    assert said(fragile_server, "goes unguided (guide_dead)") == 0  # the log has states, not requests
    poll(lambda: guided(fragile_server), STARTED, what="guidance again")


def test_ends_without_orphans_while_it_is_started_again(fragile_server):
    before = {process.pid for process in fragile_server.descendants()}
    fragile_server.small_engine().kill()
    poll(lambda: said(fragile_server, "SGL: the small engine died") == 3, what="a server that notices")
    poll(lambda: {process.pid for process in fragile_server.descendants()} - before, what="a new process")
    family = fragile_server.descendants()
    began = time.monotonic()
    assert fragile_server.terminate() == 0
    assert time.monotonic() - began < ENDED
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert len(gone) == len(family)
