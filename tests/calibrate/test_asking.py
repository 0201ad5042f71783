"""Asking: every question once in every way, what came another way refused, and a cut-off run goes on."""

import json

import pytest
from PIL import Image

from vllm_sgl.commands.calibrate import asking
from vllm_sgl.commands.calibrate.asking import Asker
from vllm_sgl.commands.calibrate.losses import Requests, Setting
from vllm_sgl.commands.calibrate.ways import LARGE, QUESTION, Asked, plan, pruned, small
from vllm_sgl.core import Reason
from vllm_sgl.evaluate.backends import Reply
from vllm_sgl.evaluate.errors import UsageError
from vllm_sgl.evaluate.questions import load as load_questions

SMALL = small("paper")
WAYS = plan(["top", "tiles"], [1.0, 0.5])
#: Answers by question and way.
ANSWERS = {
    "a": {"large": "42", "small": "42.", "top 0.5": "41", "tiles 0.5": "42"},
    "b": {"large": "wrong", "small": "17", "top 0.5": "17", "tiles 0.5": "worse"},
    "c": {"large": "red", "small": "blue", "top 0.5": "Red", "tiles 0.5": "red"},
}
RIGHT = {"a": "42", "b": "17", "c": "red"}


class Fake:
    """A server. broken: what to do at this question and way instead."""

    def __init__(self, broken=None):
        self.asked, self.closed, self._broken = [], False, broken or {}

    def answer(self, asks):
        return [self._one(ask) for ask in asks]

    def _one(self, ask):
        id, way = ask.question.id, ask.way
        if (id, way.name) in self._broken:
            found = self._broken[id, way.name]
            if isinstance(found, BaseException):
                raise found
            return found
        self.asked.append((id, way.name))
        decision = {LARGE: "bypass", SMALL: "exit"}.get(way, "prune")
        sgl = sgl_of(decision, "disabled" if way == LARGE else None, score={"a": 0.9, "b": 0.5, "c": 0.7}[id])
        return Reply(ANSWERS[id][way.name], 120, 3, sgl)

    def close(self):
        self.closed = True


def sgl_of(decision, reason=None, score=0.5):
    kept = {"bypass": 100, "exit": 0, "prune": 50}[decision]
    return {
        "decision": decision, "reason": reason, "visual_tokens": 100, "kept_tokens": kept, "tiles": 4,
        "encoded_tiles": 4, "score": score if decision == "exit" else None,
    }  # fmt: skip


@pytest.fixture
def questions(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "one.png")

    def load(answers=True):
        lines = [
            {
                "id": id,
                "image": "one.png",
                "question": f"{id}?",
                **({"answers": [RIGHT[id]]} if answers else {}),
            }
            for id in ANSWERS
        ]
        path = tmp_path / "questions.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return load_questions(path, answered=False)

    return load


def ask(questions, folder, fake, concurrency=5):
    asker = Asker(folder, {"large": "L"}, lambda: fake)
    asker.ask(questions, WAYS, 16, concurrency)
    return asker


def test_every_question_is_asked_once_in_every_way_its_ways_together(questions, tmp_path):
    fake = Fake()
    asker = ask(questions(), tmp_path / "out", fake)
    assert fake.asked == [(id, way.name) for id in ANSWERS for way in WAYS]
    assert fake.closed
    assert len(asker.records) == 3 * 4
    assert asker.costs is None
    idle = Fake()
    assert ask(questions(), tmp_path / "out", idle).records == asker.records
    assert idle.asked == []
    assert not idle.closed  # nothing was started


def test_a_run_that_was_cut_off_goes_on(questions, tmp_path):
    broken = Fake({("b", "small"): KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        ask(questions(), tmp_path / "out", broken, concurrency=1)
    assert broken.closed
    path = tmp_path / "out" / "answers.jsonl"
    path.write_text(path.read_text()[:-5])  # in the middle of a line
    fake = Fake()
    asker = ask(questions(), tmp_path / "out", fake)
    assert fake.asked[0] == ("b", "large")
    assert len(asker.records) == len({(r["question"], r["way"]) for r in asker.records}) == 12
    with pytest.raises(UsageError, match="holds answers of another run: large was 'L', is 'M'"):
        Asker(tmp_path / "out", {"large": "M"}, Fake)


@pytest.mark.parametrize(
    ("way", "reply", "words"),
    [
        (LARGE, Reply("x", 9, 1, None), "no sgl object; start the server with --sgl-small"),
        (pruned("top", 0.5), sgl_of("bypass", Reason.BREAK_EVEN), "--sgl-break-even off"),
        (
            SMALL,
            sgl_of("bypass", Reason.GUIDE_BUSY),
            r"the guide was not available \(guide_busy\).*lower --concurrency",
        ),
        (pruned("top", 0.5), sgl_of("exit"), "expected no exit, received one"),
    ],
)
def test_what_came_another_way_is_refused_and_what_came_before_is_kept(
    questions, tmp_path, way, reply, words
):
    reply = reply if isinstance(reply, Reply) else Reply("x", 9, 1, reply)
    with pytest.raises(UsageError, match=f"^question 'b', {way.name}: .*{words}"):
        ask(questions(), tmp_path / "out", Fake({("b", way.name): reply}))
    fake = Fake()
    ask(questions(), tmp_path / "out", fake)
    assert fake.asked[0] == ("b", way.name)


def test_keys():
    assert [way.keys for way in WAYS] == [
        {"sgl_enabled": 0},
        {"sgl_exit_threshold": 0, "sgl_exit_score": "paper"},
        {"sgl_retention": 0.5, "sgl_policy": "top", "sgl_exit_threshold": "off"},
        {"sgl_retention": 0.5, "sgl_policy": "tiles", "sgl_exit_threshold": "off"},
    ]


def test_only_engines_in_this_process_read_a_question_s_id(questions):
    (first, *_) = questions()
    assert QUESTION not in Asked(first, SMALL, 16, in_process=False).xargs
    assert Asked(first, SMALL, 16, in_process=True).xargs[QUESTION] == "a"
    (message,) = Asked(first, SMALL, 16, in_process=False).messages
    image, text = message["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "a?"}


@pytest.mark.parametrize(
    ("answers", "small", "top", "tiles"),
    [(True, [0, 0, 1], [1, 0, 0], [0, 0, 0]), (False, [0, 1, 1], [1, 1, 0], [0, 1, 0])],
    ids=["against answers", "against the large model's own"],
)
def test_losses(questions, tmp_path, answers, small, top, tiles):
    """What only the setting has right makes up for nothing: "b" is right small and wrong large."""
    found = questions(answers)
    requests = Requests.of(found, WAYS, ask(found, tmp_path / "out", Fake()).records, "exact")
    assert requests.whole
    assert requests.scores["paper"].tolist() == [0.9, 0.5, 0.7]
    assert requests.small_loss.tolist() == small
    assert requests.pruned["top", 0.5].loss.tolist() == top
    assert requests.pruned["tiles", 0.5].loss.tolist() == tiles
    assert requests.pruned["top", 1.0].loss.tolist() == [0, 0, 0]
    assert requests.losses(Setting("top", 0.5, 0.8)).tolist() == [small[0], top[1], top[2]]
    assert requests.pruned["top", 0.5].kept_tokens.tolist() == [50] * 3


def test_losses_in_between(questions, tmp_path):
    found = questions(answers=False)
    requests = Requests.of(found, WAYS, ask(found, tmp_path / "out", Fake()).records, "anls")
    assert not requests.whole
    assert requests.pruned["top", 0.5].loss.tolist() == pytest.approx([0.5, 1, 0], abs=0.51)
    assert 0 < requests.pruned["tiles", 0.5].loss[1] <= 1


def test_who_cannot_exit_never_does_and_who_is_left_alone_loses_nothing(questions, tmp_path):
    unfinished = Reply("4", 120, 3, {**sgl_of("prune", Reason.UNFINISHED), "score": None})
    left = Reply("red", 120, 3, sgl_of("bypass", Reason.TOO_LONG))
    ways = {("c", way.name): left for way in WAYS}
    found = questions()
    asker = ask(found, tmp_path / "out", Fake({("a", "small"): unfinished, **ways}))
    requests = Requests.of(found, WAYS, asker.records, "exact")
    assert requests.exits(Setting("top", 1.0, 0.0)).tolist() == [False, True, False]
    assert requests.guided.tolist() == [1, 1, 0]
    assert requests.small_loss.tolist() == [0, 0, 0]


def test_costs_are_kept_beside_the_answers(questions, tmp_path, monkeypatch):
    from vllm_sgl.decide.costs import Costs

    measured = Costs((0.1, 0.2), 0.3, ((32, 0.4), (64, 0.5)), 0.6, ((256, 100), (512, 150)))

    class Measuring(Fake):
        costs = measured

    monkeypatch.setattr(asking, "Engines", Measuring)
    asker = ask(questions(), tmp_path / "out", Measuring())
    assert asker.costs == measured
    assert ask(questions(), tmp_path / "out", Fake()).costs == measured
