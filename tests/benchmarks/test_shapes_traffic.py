"""Which requests the shapes of traffic send, and when."""

import random
from itertools import count, pairwise

import pytest

from benchmarks.shapes.bodies import body, urls
from benchmarks.shapes.figures import FIGURES, WHOLE
from benchmarks.shapes.traffic import SHAPES, Amount
from benchmarks.shapes.traffic.base import side_by_side
from benchmarks.shapes.traffic.open_loop import SHARES
from benchmarks.shapes.traffic.requests import arrivals, chat, fresh
from benchmarks.shapes.traffic.scenes import asked, video

AMOUNT = Amount(rounds=2, seconds=10.0, capacity=2.0)
EVERY_SHAPE = pytest.mark.parametrize("name", SHAPES)


@EVERY_SHAPE
def test_equal_amounts_send_equal_requests(name):
    """Plain and SGL, and tomorrow's run, are asked the same."""

    def sent():
        return [
            (case.group, lane.at, request.part, request.answers, [turn.text for turn in request.turns])
            for case in SHAPES[name].cases(AMOUNT)
            for lane in case.lanes
            for request in lane.requests
        ]

    assert sent() == sent() != []


@EVERY_SHAPE
def test_no_case_knows_another_ones_images(name):
    cases = list(SHAPES[name].cases(AMOUNT))
    assert all(one.lanes and list(one.requests()) for one in cases)
    media = [one for case in cases for one in case.media()]
    assert len(media) == len(set(media))


@EVERY_SHAPE
def test_the_short_table_shows_figures_that_exist(name):
    assert set(SHAPES[name].figures) <= {*FIGURES, "whole", "within goal"}


@EVERY_SHAPE
def test_the_table_at_a_glance_shows_what_is_sent(name):
    cases = list(SHAPES[name].cases(AMOUNT))
    parts = {(case.group, one.part) for case in cases for lane in case.lanes for one in lane.requests}
    parts |= {(case.group, WHOLE) for case in cases if case.whole}
    shown = [(one.group, part) for one in SHAPES[name].glance for part in one.parts]
    assert set(shown) <= parts
    assert shown
    assert {one.figure for one in SHAPES[name].glance} <= {*FIGURES, "whole", "within goal"}


@EVERY_SHAPE
def test_a_smoke_test_is_small(name):
    cases = list(SHAPES[name].cases(Amount(rounds=1, seconds=2.0, capacity=2.0, scale=4)))
    assert sum(len(list(case.requests())) for case in cases) <= 20


def test_a_turn_begins_with_the_turns_before_it_and_the_same_image():
    requests = chat(asked((1,), questions=4))
    assert [one.part for one in requests] == ["turn 1", "turn 2", "turn 3", "turn 4"]
    for before, after in pairwise(requests):
        *history, answer, _ = after.turns
        assert tuple(history) == before.turns
        assert answer.role == "assistant"
        assert (answer.text,) == before.answers
    media = urls(next(iter(SHAPES["chats"].cases(AMOUNT))), count(1))
    assert len(media) == 1


def test_questions_about_one_image_differ_and_have_answers():
    about = asked((2,), questions=30)
    assert len({one.text for one in about.questions}) == 30
    assert len(about.media) == 1
    assert all(one.answer.isdigit() for one in about.questions)
    with pytest.raises(ValueError, match="expected at most 32 questions, received 33"):
        asked((2,), questions=33)


def test_a_case_has_other_pixels_for_each_server():
    case = next(iter(SHAPES["chats"].cases(AMOUNT)))
    marks = count(1)
    assert set(urls(case, marks).values()).isdisjoint(urls(case, marks).values())


def test_bodies_have_keys_and_media():
    about = video(1)
    request = fresh((3,))
    media = {request.turns[0].media[0]: "data:image", about.media[0]: "data:video"}
    made = body(request, media, {"sgl_retention": 0.35}).decode()
    assert '"vllm_xargs": {"sgl_retention": 0.35}' in made
    assert '"image_url": {"url": "data:image"}' in made
    assert "vllm_xargs" not in body(request, media, {}).decode()
    assert about.media[0].video
    assert not request.turns[0].media[0].video


def test_arrivals_are_a_poisson_process_with_the_load_that_they_say():
    times = arrivals(random.Random(0), rate=50.0, seconds=100.0)
    assert len(times) == 5000
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] < 100
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variation = sum((gap - mean) ** 2 for gap in gaps) / len(gaps) / mean**2
    assert variation == pytest.approx(1.0, abs=0.1)  # of an exponential; 0 if they came evenly


def test_an_open_loop_sends_at_shares_of_the_capacity():
    cases = list(SHAPES["open-loop"].cases(AMOUNT))[: len(SHARES)]
    assert [len(case.lanes) for case in cases] == [round(share * 2.0 * 10.0) for share in SHARES]
    assert all(not case.whole for case in cases)


def test_clients_share_requests():
    requests = [fresh((4, number)) for number in range(5)]
    lanes = side_by_side(requests, clients=2)
    assert [len(lane.requests) for lane in lanes] == [3, 2]
    assert side_by_side(requests[:1], clients=4)[0].requests == (requests[0],)
