"""Many clients at once: nobody gets another one's mask, and the metrics add up."""

from collections import Counter

import pytest

from tests.serve.asking import VISUAL, ask, same_report, text
from tests.support.images import QUESTIONS

IMAGE = 1


def facts(completion):
    report = completion.sgl
    return (text(completion), report["decision"], report["reason"], report["kept_tokens"])


def at_once(server, clients, asked):
    futures = [clients.submit(ask, server, question, IMAGE, **options) for question, options in asked]
    return [future.result() for future in futures]


@pytest.fixture(scope="module")
def asked():
    """Different questions about one image, hard and soft pruning mixed, some with an exit in reach."""
    rounds = [{"retention": 0.35}, {"retention": 0.09}, {"retention": 0.35, "exit_threshold": 0.23}]
    return [
        (question, {"sgl": rounds[(number + turn) % 3]})
        for turn in range(3)
        for number, question in enumerate(QUESTIONS)
    ]


def test_concurrent_answers_equal_single_ones(server, clients, asked):
    alone = [ask(server, question, IMAGE, **options) for question, options in asked]
    together = at_once(server, clients, asked)
    assert [facts(completion) for completion in together] == [facts(completion) for completion in alone]
    for one, other in zip(alone, together, strict=True):
        assert same_report(one.sgl, other.sgl)
    # The load was worth something: both ways out, and answers that a wrong mask would change.
    assert {completion.sgl["decision"] for completion in alone} == {"prune", "exit"}
    pruned = [text(completion) for completion in alone if completion.sgl["decision"] == "prune"]
    assert len(set(pruned)) > len(pruned) // 2


def test_metrics_add_up_to_the_responses(server, clients, asked):
    before = server.metrics()
    answers = at_once(
        server, clients, [*asked, ("Who?", {"sgl": {"enabled": 0}}), ("Who?", {"n": 2, "temperature": 0.8})]
    )
    answers.append(ask(server, "Who?"))
    after = server.metrics()

    def grown(name, **labels):
        return after.total(name, **labels) - before.total(name, **labels)

    reports = [completion.sgl for completion in answers]
    by_way = Counter((report["decision"], report["reason"] or "") for report in reports)
    assert {way[0] for way in by_way} == {"prune", "exit", "bypass"}
    for (decision, reason), count in by_way.items():
        assert grown("sgl:requests_total", decision=decision, reason=reason) == count
    assert grown("sgl:requests_total") == len(answers)
    seen = sum(report["visual_tokens"] for report in reports)
    assert seen == VISUAL * (len(answers) - 1)
    assert grown("sgl:visual_tokens_total", kind="seen") == seen
    assert grown("sgl:visual_tokens_total", kind="kept") == sum(report["kept_tokens"] for report in reports)
    for kind, field in (("seen", "tiles"), ("encoded", "encoded_tiles")):
        assert grown("sgl:tiles_total", kind=kind) == sum(report[field] for report in reports)
    guided = [report for report in reports if report["guide_seconds"] is not None]
    assert grown("sgl:guide_seconds_count") == len(guided)
    expected = sum(report["guide_seconds"] for report in guided)
    assert grown("sgl:guide_seconds_sum") == pytest.approx(expected)
    scores = [report["score"] for report in reports if report["score"] is not None]
    assert grown("sgl:score_count") == len(scores)
    assert grown("sgl:score_sum") == pytest.approx(sum(scores))
    assert after.total("sgl:guide_up") == 1
    # vLLM's own metrics are the large engine's: an exit never reaches it.
    large = sum(completion.sgl["decision"] != "exit" for completion in answers)
    assert grown("vllm:request_success_total") == large + 1  # n=2 is two requests inside
