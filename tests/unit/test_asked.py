"""What travels beside a request: reports by engine request, a beam search as one."""

from vllm_sgl.core import Report
from vllm_sgl.request import client_request
from vllm_sgl.request.client_request import Asked

ONE, TWO = Report("prune", visual_tokens=8), Report("exit", visual_tokens=4)


def test_reports_belong_to_engine_requests():
    about = Asked()
    first, second = about.request(1), about.request(2)
    second.report = TWO
    assert (first.report, about.report) == (None, TWO)
    first.report = ONE
    assert [made.report for made in about.requests] == [ONE, TWO]
    assert about.report is TWO


def test_the_steps_of_a_beam_search_are_one_request():
    about = Asked(beam_search=True)
    first = about.request(1)
    first.report = ONE
    assert about.request(1) is first
    assert len(about.requests) == 1


def test_prompts_are_asked_together_and_rounds_one_after_the_other():
    prompts, rounds = Asked(), Asked()
    for _ in range(3):
        prompts.request(1)
        rounds.request(1).report = ONE
    assert (prompts.several, rounds.several) == (True, False)


def test_nothing_was_decided():
    assert Asked().report is None
    about = Asked()
    about.request(1)
    assert about.report is None


def test_what_was_written_stands_for_what_vllm_made_of_it():
    about = Asked(keys={"sgl_retention": True, "sgl_elsewhere": True})
    given = {"sgl_retention": 1, "other": 1}
    assert about.as_written(given) == {"sgl_retention": True, "other": 1}
    assert given == {"sgl_retention": 1, "other": 1}
    assert about.as_written(None) == {}


def test_asking_ends():
    about = Asked()
    with client_request.asking(about):
        assert client_request.current.get() is about
    assert client_request.current.get() is None
