"""Requests about one image or of one conversation depend on each other: they are split and count together."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tests.calibrate.made_up import draw
from vllm_sgl import cli
from vllm_sgl.commands.calibrate import choosing, risk, shadow_log
from vllm_sgl.commands.calibrate.choosing import Promise
from vllm_sgl.commands.calibrate.cost import TokensCost
from vllm_sgl.commands.calibrate.losses import Requests, groups
from vllm_sgl.commands.calibrate.report import too_few
from vllm_sgl.evaluate.errors import UsageError
from vllm_sgl.evaluate.questions import load
from vllm_sgl.telemetry import request_log


def alike(rng, images, each):
    """Questions of which all about one image share its fate."""
    drawn = draw(rng, images)
    rows = np.repeat(np.arange(images), each)
    return replace(drawn.some(rows), group=rows.astype(float))


def test_questions_are_grouped_by_what_they_share():
    assert groups([["a"], ["b"], ["a", "c"], [], ["c"], []]) == [0, 1, 0, 3, 0, 5]
    assert groups([["a"], ["b"], ["b", "a"]])[0] == groups([["a"], ["b"], ["b", "a"]])[1]
    assert groups([]) == []


def test_a_group_is_never_split():
    made = alike(np.random.default_rng(0), 60, 4)
    first, second = choosing.split(len(made), 3, made.group_numbers())
    assert len(first) == 20 * 4
    assert not {*made.group[first]} & {*made.group[second]}
    assert sorted([*first, *second]) == list(range(240))


@pytest.mark.parametrize("counted", [True, False], ids=["together", "as if they were independent"])
def test_the_promise_holds_only_if_groups_are_counted_together(counted):
    """Six questions an image; a level just below the loss of pruning to a fifth. Six times the requests are
    no more evidence."""
    rng = np.random.default_rng(1)
    promise, runs = Promise(0.05, 0.9), 300
    broken = 0
    for _ in range(runs):
        made = alike(rng, 90, 6)
        made = made if counted else replace(made, group=None)
        only = {key: one for key, one in made.pruned.items() if key[1] in (1.0, 0.2)}
        made = replace(made, pruned=only, scores={"paper": np.full(len(made), np.nan)})
        found = choosing.choose(made, promise, TokensCost(), ())
        broken += found.chosen is not None  # 6 % are lost
    allowed = promise.error + 2 * math.sqrt(promise.error * promise.confidence / runs)
    assert (broken / runs <= allowed) is counted


def test_groups_of_one_count_as_ever():
    made = draw(np.random.default_rng(2), 300)
    alone = replace(made, group=np.arange(300.0)[::-1].copy())
    promise = Promise(0.05, 0.9)
    one, other = (choosing.choose(requests, promise, TokensCost()) for requests in (made, alone))
    assert one == other
    assert all(tested.groups == tested.n for tested in one.tests)


def test_a_group_stands_for_one_loss():
    """Groups of equal size: their mean losses, as many as there are groups."""
    together = risk.p_value(6.0, 400, 0.05, True, risk.Groups(100, 4))
    assert together == risk.p_value(1.5, 100, 0.05, False)
    assert risk.p_value(6.0, 400, 0.05, True) < together
    # Of unequal ones the mean over requests is what is promised: exactly at the level nothing is known.
    assert risk.p_value(0.05 * 400, 400, 0.05, True, risk.Groups(100, 9)) == 1.0
    found = risk.bound(6.0, 400, 0.1, True, risk.Groups(100, 4))
    assert risk.p_value(6.0, 400, found, True, risk.Groups(100, 4)) == pytest.approx(0.1, abs=1e-4)


def test_groups_survive_json_and_old_files_have_none():
    made = replace(alike(np.random.default_rng(3), 5, 2), images=np.full(10, 2.0))
    again = Requests.parse(made.as_json())
    assert again.group.tolist() == made.group.tolist()
    assert again.images.tolist() == [2.0] * 10
    old = {name: value for name, value in made.as_json().items() if name not in ("group", "images")}
    assert len(Requests.parse(old).group_sizes()) == 10


def test_questions_say_what_they_depend_on(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").touch()
    file = tmp_path / "q.jsonl"
    turns = [("a.png", "x"), ("a.png", None), ("b.png", "x")]
    lines = [
        json.dumps({"image": i, "question": "?", **({"conversation": c} if c else {})}) for i, c in turns
    ]
    file.write_text("\n".join(lines))
    found = load(file, answered=False)
    assert len(set(groups([question.depends_on for question in found]))) == 1
    file.write_text('{"image": "a.png", "question": "1", "conversation": 7}')
    with pytest.raises(UsageError, match="conversation: expected a text, received 7"):
        load(file, answered=False)


def test_too_few_are_counted_by_image():
    said = too_few(100, Promise(0.01, 0.9), 600)
    assert said.startswith(
        "100 images or conversations (of 600 requests: those that share one count once) are"
    )
    assert "344 at least" in said
    assert too_few(100, Promise(0.01, 0.9), 100).startswith("100 requests are too few")


def test_turns_in_a_log_are_grouped_by_the_images_that_they_share(tmp_path):
    """Each turn sends the images of those before it; logs of earlier releases name none."""
    turn = {
        "decision": "prune", "exit_threshold": 0, "score": 0.5, "agrees": True, "visual_tokens": 9,
        "prompt_tokens": 20, "tiles": 1, "finish_reason": "stop",
    }  # fmt: skip
    images = [["a"], ["a", "b"], ["c"], ["b"], [], None]
    lines = [turn if one is None else {**turn, "images": one} for one in images]
    file = tmp_path / "shadow.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    found = shadow_log.read([file]).requests
    assert found.group_numbers().tolist() == [0, 0, 1, 0, 2, 3]


def test_a_log_of_two_images_says_that_they_are_too_few(tmp_path, capsys):
    turn = {
        "decision": "exit", "exit_threshold": 0, "score": 0.5, "agrees": True, "visual_tokens": 9,
        "prompt_tokens": 20, "tiles": 1, "finish_reason": "stop",
    }  # fmt: skip
    file = tmp_path / "shadow.jsonl"
    file.write_text("\n".join(json.dumps({**turn, "images": ["ab"[n % 2]]}) for n in range(48)))
    arguments = ["--log", str(file), "--max-loss", "0.7", "--out", str(tmp_path / "out"), "--no-picture"]
    assert cli.main(["calibrate", *arguments]) == 1
    said = capsys.readouterr().out
    assert "2 images or conversations are too few to choose settings by; expected requests about 3" in said


def test_a_log_names_an_image_without_what_the_client_called_it():
    one = {"mm_hashes": {"image": ["the client's uuid", "abc"], "video": ["abc"]}}
    first, second, third = request_log._images(one)
    assert second == third != first
    assert "client" not in first
    assert [len(first), request_log._images("text"), request_log._images({})] == [16, [], []]
