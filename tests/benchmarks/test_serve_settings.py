"""What presets ask: settings, their keys, and which questions whom."""

from dataclasses import replace

import pytest

from benchmarks.serve.__main__ import _parse
from benchmarks.serve.presets import PRESETS
from benchmarks.serve.random_guide import RANDOM, RandomGuide
from benchmarks.serve.settings import DEFAULT, PLAIN, Setting, Step

SIGNS = PRESETS["signs-26b"]


def test_keys_of_a_request():
    assert PLAIN.xargs(0.5) == DEFAULT.xargs(0.5) == Setting("small").xargs(0.5) == {}
    assert Setting("downsampled", 0.35).xargs(0.5) == {}
    keys = {"sgl_retention": 0.35, "sgl_exit_threshold": "off"}
    assert Setting(retention=0.35).xargs(0.5) == keys
    assert Setting("random", 0.35).xargs(0.5) == {**keys, RANDOM: 1}
    assert Setting(retention=0.35, policy="tiles").xargs(0.5) == {**keys, "sgl_policy": "tiles"}
    assert Setting(retention=0.35, exits=True).xargs(0.5)["sgl_exit_threshold"] == 0.5
    assert Setting(retention=0.35, exits=True, threshold=0.9).xargs(0.5)["sgl_exit_threshold"] == 0.9


def test_names_tell_settings_apart():
    many = replace(SIGNS, thresholds=(0.8, 0.9), policies=("top", "tiles"))
    names = [str(setting) for setting in (PLAIN, *many.settings)]
    assert len(names) == len(set(names))


def test_policies_and_thresholds_multiply_but_for_what_is_not_pruned():
    many = replace(SIGNS, retentions=(1.0, 0.35), thresholds=(0.8, 0.9), policies=("top", "tiles"))
    expected = {
        Setting("sgl", *rest)
        for exits, threshold in ((False, None), (True, 0.8), (True, 0.9))
        for rest in (
            (1.0, exits, threshold, None),
            (0.35, exits, threshold, "top"),
            (0.35, exits, threshold, "tiles"),
        )
    }
    assert len(many.guided) == len(expected) == 9
    assert set(many.guided) == expected


def test_a_setting_is_guided_or_not_and_answered_somewhere():
    assert not Setting().guided
    assert Setting(retention=0.35).guided
    assert Setting(exits=True).guided
    assert not Setting("random", 0.35).guided
    assert Setting("random", 0.35).side == "guided"
    assert Setting("downsampled", 0.35).side == "plain"
    assert (Setting("downsampled", 0.35).sent, Setting("random", 0.35).sent) == (0.35, 1)


def test_all_settings_are_asked_the_same_and_no_question_twice():
    numbers = {}
    for round in range(SIGNS.rounds):
        for step in SIGNS.steps(round):
            asked = SIGNS.numbers(step)
            assert len(asked) == SIGNS.loads[step.clients]
            assert numbers.setdefault((step.round, step.clients), asked) == asked
    every = [number for asked in numbers.values() for number in asked]
    assert sorted(every) == list(range(400))


def test_random_tokens_are_measured_where_they_are_asked_for():
    assert SIGNS.random
    assert not PRESETS["cpu"].random
    assert SIGNS.shares == (1.0, 0.35, 0.18, 0.09)
    assert SIGNS.numbers(Step(0, 1, 0, PLAIN)) == range(8)


class Guide:
    context = 640

    async def look(self, request, guide_tokens):
        return "guided", request, guide_tokens


class Asked:
    visual_tokens = (5, 3)

    def __init__(self, **extra):
        self.params = self
        self.extra_args = extra or None


async def test_only_requests_that_want_random_tokens_get_them():
    guide, plain = RandomGuide(Guide()), Asked(sgl_retention=0.5)
    assert guide.context == 640
    assert await guide.look(plain, 4) == ("guided", plain, 4)
    first, second = [await guide.look(Asked(**{RANDOM: 1}), 4) for _ in range(2)]
    assert [len(part) for part in first.importance] == [5, 3]
    assert first.importance[0].tolist() != second.importance[0].tolist()
    assert not first.answer.finished


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole(name):
    preset = PRESETS[name]
    assert list(preset.loads) == sorted(preset.loads)
    assert preset.guided
    assert preset.asked.known == name.startswith("signs")
    assert preset.asked.fixed_length != preset.asked.known


def test_some_of_a_presets_loads(capsys):
    loads = PRESETS["cpu"].loads
    assert _parse(["--clients", "4", "1"]).loads == {1: loads[1], 4: loads[4]}
    assert _parse([]).loads is None
    with pytest.raises(SystemExit):
        _parse(["--clients", "4", "5"])
    assert "expected some of [1, 4, 16, 32], received [5]" in capsys.readouterr().err
