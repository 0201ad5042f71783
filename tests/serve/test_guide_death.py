"""The small engine stops, then dies, under load; the server stays. The tests run in this order."""

import psutil
import pytest

from tests.serve.asking import VISUAL, ask, stream, text
from tests.serve.test_load import QUESTIONS
from tests.support.server import frozen, poll

SEEDS = (1, 2, 3)
DEAD = {"guide_dead", "guide_failed"}


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


def test_settings_from_additional_config(fragile_server):
    completion = ask(fragile_server, "Who?", 1)
    assert (completion.sgl["decision"], completion.sgl["kept_tokens"]) == ("prune", VISUAL // 2)
    status, headers, _ = fragile_server.get("/health")
    assert (status, headers["sgl-guide"]) == (200, "up")


def test_silent_guide_times_out_and_comes_back(fragile_server, clients, expected):
    with frozen(fragile_server.small_engine()):
        futures = {
            (question, 1): clients.submit(ask, fragile_server, question, 1, sgl={"exit_threshold": 0})
            for question in QUESTIONS[:4]
        }
        answers = {asked: future.result() for asked, future in futures.items()}
    for asked, completion in answers.items():
        assert completion.sgl["decision"] == "bypass"
        assert completion.sgl["reason"] == "guide_timeout"
        assert 5 <= completion.sgl["guide_seconds"] < 30
        assert text(completion) == expected[asked]["bypass"]
    metrics = fragile_server.metrics()
    assert metrics.total("sgl:requests_total", decision="bypass", reason="guide_timeout") == len(answers)

    def guided():
        return ask(fragile_server, "Who?", 1, max_tokens=2).sgl["decision"] == "prune"

    poll(guided, what="a guide that works again")


def test_killed_guide_loses_no_request(fragile_server, clients, expected):
    small = fragile_server.small_engine()
    family = [small, *small.children(recursive=True)]
    asked = [*expected, *expected, *expected]
    futures = [clients.submit(ask, fragile_server, *question) for question in asked]
    poll(lambda: sum(future.done() for future in futures) >= 8, what="load on the server")
    small.kill()
    answers = [future.result() for future in futures]
    for question, completion in zip(asked, answers, strict=True):
        assert completion.sgl["reason"] in (DEAD if completion.sgl["decision"] == "bypass" else {None})
        assert text(completion) == expected[question][completion.sgl["decision"]]
    bypassed = [completion for completion in answers if completion.sgl["decision"] == "bypass"]
    assert len(answers) - 8 >= len(bypassed) > len(answers) // 4
    assert not psutil.wait_procs(family, timeout=30)[1]


def test_server_says_that_the_guide_is_down(fragile_server):
    status, headers, _ = fragile_server.get("/health")
    assert (status, headers["sgl-guide"]) == (200, "down")
    assert fragile_server.metrics().total("sgl:guide_up") == 0


def test_new_requests_are_answered(fragile_server, expected):
    asked = ("What is on the sign?", 2)
    before = fragile_server.metrics()
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


def test_shuts_down_without_orphans(fragile_server):
    family = fragile_server.descendants()
    assert family
    assert fragile_server.terminate() == 0
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert len(gone) == len(family)
