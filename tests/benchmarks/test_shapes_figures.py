"""Settings, arithmetic and tables of `benchmarks.shapes`."""

import argparse
import math

import pytest

from benchmarks.shapes import tables
from benchmarks.shapes.client import Answer, Sent
from benchmarks.shapes.figures import Run, percentile, rows
from benchmarks.shapes.settings import KNOWN, PLAIN, in_turn, setting, variants


def answer(part: str, seconds: float, first: float = 0.5, arrivals=(), **more) -> Answer:
    tokens = len(arrivals) or 3
    return Answer(part, first, seconds, arrivals=list(arrivals), prompt_tokens=100, tokens=tokens, **more)


def run(name: str, case: int, answers: list[Answer], seconds: float, whole: bool = True) -> Run:
    return Run("chats", "one chat", case, name, whole, Sent(answers, seconds))


def test_a_setting_has_keys_and_flags_of_its_own():
    made = setting("late:35% tiles,--sgl-follow-ups=late,--sgl-hot-after=3,sgl_retention=0.2")
    assert made.name == "late"
    assert made.flags == ("--sgl-follow-ups=late", "--sgl-hot-after=3")
    assert made.keys == {**KNOWN["35% tiles"].keys, "sgl_retention": 0.2}
    assert setting("35% tiles, exits") is KNOWN["35% tiles, exits"]


@pytest.mark.parametrize("text", ["36% tiles", "a:", ":sgl_retention=1", "a:retention=1", "a:sgl_retention"])
def test_a_setting_that_cannot_be_read(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        setting(text)


def test_settings_that_differ_in_keys_share_a_server():
    off = setting("off:35% tiles,--sgl-follow-ups=off")
    made = variants([KNOWN["35% tiles"], KNOWN["18% tiles"], off])
    assert list(made) == [(), ("--sgl-follow-ups=off",)]
    assert made[off.flags].flags == off.flags
    assert len({variant.name for variant in made.values()}) == 2


def test_each_setting_comes_first_as_often_as_any_other():
    settings = [KNOWN["35% tiles"], KNOWN["18% tiles"]]
    orders = [in_turn(settings, case) for case in range(6)]
    firsts = [order[0] for order in orders]
    assert all(firsts.count(one) == 2 for one in (PLAIN, *settings))
    assert all(set(map(id, order)) == set(map(id, orders[0])) for order in orders)


def test_a_percentile_is_one_of_the_values():
    values = list(range(1, 101))
    assert percentile(values, 0.99) == 99
    assert percentile(values, 0.5) == 50
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.99) is None


def test_ratios_are_of_the_same_case():
    """Cases differ, by a factor of ten here; what counts is each against plain vLLM's own."""
    runs = [
        run("plain", 0, [answer("turn 1", 1.0, right=1.0)], 2.0),
        run("35% tiles", 0, [answer("turn 1", 0.5, right=1.0)], 1.0),
        run("plain", 1, [answer("turn 1", 10.0, right=1.0)], 20.0),
        run("35% tiles", 1, [answer("turn 1", 20.0, right=0.0)], 10.0),
    ]
    found = {(row["part"], row["setting"]): row for row in rows(runs, goal=5.0)}
    ratio = found["turn 1", "35% tiles"]["ratios"]["answer"]
    assert ratio == {"value": pytest.approx(1.0), "low": 0.5, "high": 2.0}
    assert found["turn 1", "35% tiles"]["right"] == 0.5
    assert found["turn 1", "plain"]["within goal"] == 0.5
    assert found["all of it", "35% tiles"]["ratios"]["whole"]["value"] == pytest.approx(2.0)
    assert found["all of it", "plain"]["seconds"]["whole"] == 11.0


def test_time_between_tokens_is_that_of_long_answers():
    even = [0.1 * token for token in range(10)]
    stalled = [*even[:-1], 1.8]
    runs = [
        run(
            "plain", 0, [answer("text", 1.8, arrivals=stalled), answer("text", 0.3, arrivals=[0.1, 0.9])], 2.0
        ),
        run("35% tiles", 0, [answer("text", 0.9, arrivals=even)], 2.0),
    ]
    plain, sgl = rows(runs, goal=1.0)[:2]
    assert plain["seconds"]["per token"] == pytest.approx(0.2)  # 1.8 s over nine gaps
    assert plain["seconds"]["between tokens, p99"] == pytest.approx(1.0)
    assert sgl["ratios"]["between tokens, p99"]["value"] == pytest.approx(10.0)


def test_a_part_without_long_answers_has_no_time_between_tokens():
    (row, *_) = rows([run("plain", 0, [answer("turn 1", 1.0, arrivals=[0.4, 0.5])], 1.0)], goal=1.0)
    assert row["seconds"]["per token"] is None
    assert row["ratios"]["between tokens, p99"] is None


def more_turns():
    for number, ratio in ((3, 3.0), (4, 4.0)):
        runs = [run("plain", 0, [answer(f"turn {number}", 1.0, ratio)], 1.0)]
        runs.append(run("35% tiles", 0, [answer(f"turn {number}", 1.0, 1.0)], 1.0))
        yield from (row for row in rows(runs, 1.0) if row["part"] != "all of it")


def test_the_short_table_has_seconds_of_plain_ratios_and_right_answers():
    sgl = {"decision": "prune", "reason": None, "guide_seconds": 0.1}
    runs = [
        run("plain", 0, [answer("turn 1", 1.0, right=1.0), answer("turn 2", 0.2, 0.1, right=1.0)], 1.2),
        run(
            "35% tiles",
            0,
            [answer("turn 1", 0.5, right=1.0, sgl=sgl), answer("turn 2", 0.4, 0.2, right=0.0)],
            0.9,
        ),
    ]
    made = tables.short(rows(runs, goal=1.0))
    cells = {(row["traffic"], row["figure"]): (row["plain"], row["35% tiles"]) for row in made}
    assert cells["chats: one chat, turn 1", "answer"] == ("1 s", "2.00")
    assert cells["chats: one chat, turn 2", "answer"] == ("0.2 s", "0.50")
    assert cells["chats: one chat, turn 2", "right"] == ("100 %", "0 %")
    assert cells["chats: one chat, all of it", "whole"] == ("1.2 s", "1.33")
    assert made[-1]["traffic"] == "chats: one chat, all of it"
    turns = next(
        row for row in tables.glance([*rows(runs, 1.0), *more_turns()]) if "2 / 3 / 4" in row["traffic"]
    )
    assert turns["35% tiles"] == "0.50 / 3.00 / 4.00"
    (turn, *_) = (row for row in tables.long(rows(runs, goal=1.0)) if row["setting"] == "35% tiles")
    assert turn["decisions"] == "1 prune"
    assert math.isclose(turn["guide, s"], 0.1)
