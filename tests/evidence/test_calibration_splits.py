"""Promises of ``vllm-sgl calibrate`` hold on random splits of the shipped pair's sign questions, worked out
from what was lost per question in the committed run.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import calibration_splits
from benchmarks.calibration_splits import splits
from vllm_sgl.commands.calibrate import choosing, sequence
from vllm_sgl.commands.calibrate.choosing import Promise
from vllm_sgl.commands.calibrate.cost import TokensCost
from vllm_sgl.commands.calibrate.losses import Requests

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "results" / "calibration-signs.json"
CONFIDENCE = 0.9
LEVELS = (0.02, 0.03, 0.05)


@pytest.fixture(scope="module")
def committed():
    return json.loads(COMMITTED.read_text())


@pytest.fixture(scope="module")
def requests(committed):
    return Requests.parse(committed)


def test_the_file_says_where_it_is_from(committed, requests):
    assert committed.keys() >= {"machine", "versions", "commit", "utc", "run", "loss", "splits"}
    assert len(requests) == 800
    assert requests.whole
    assert requests.small_loss.mean() > 0.1  # the small model alone is no way to keep a promise
    assert COMMITTED.stat().st_size < 300 << 10
    assert "test-" not in COMMITTED.read_text()  # nobody's question


@pytest.mark.parametrize("level", LEVELS)
def test_promises_are_broken_no_more_often_than_the_confidence_says(committed, requests, level):
    made = list(splits(requests, Promise(level, CONFIDENCE), 500))
    broken = [split.held_out > level for split in made]
    assert sum(broken[:20]) <= round((1 - CONFIDENCE) * 20)
    assert sum(broken) <= round((1 - CONFIDENCE) * 500)
    (row,) = (row for row in committed["splits"] if row["loss at most %"] == 100 * level)
    assert row["broken, held out"] == sum(broken)
    assert row["promised"] == sum(split.chosen is not None for split in made)


@pytest.mark.parametrize(("level", "tokens", "pruned"), [(0.02, 0.43, 0.85), (0.05, 0.12, 1.0)])
def test_they_are_worth_something(requests, level, tokens, pruned):
    """Every half of the questions gives a setting, nearly always one that prunes; exits alone seldom are all
    that was tested."""
    made = list(splits(requests, Promise(level, CONFIDENCE), 50))
    chosen = [split.chosen for split in made]
    assert None not in chosen
    assert np.mean([split.cost for split in made]) < tokens
    assert np.mean([setting.retention < 1 for setting in chosen]) >= pruned


def test_the_page_says_what_may_be_promised(requests):
    page = (Path(__file__).parents[2] / "docs" / "calibrating.md").read_text()
    for level in (0.01, 0.02, 0.03, 0.05):
        choice = choosing.choose(requests, Promise(level, CONFIDENCE), TokensCost())
        (tested,) = (tested for tested in choice.tests if tested.setting == choice.chosen)
        exits = requests.exits(choice.chosen).mean()
        given = TokensCost().of(requests, choice.chosen)
        setting = str(choice.chosen).replace("%", " %")
        row = f"| {level:.0%} | {setting} | {tested.lost:g} of {tested.n} | {exits:.0%} | {given:.0%} |"
        assert re.sub(r"(\d)%", r"\1 %", row) in page


def test_a_best_guess_breaks_them_more_often(requests):
    """The cheapest setting whose losses on one half are small enough, looked at on the other half."""
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(100):
        rows = rng.permutation(len(requests))
        used, held_out = requests.some(rows[:400]), requests.some(rows[400:])
        grid = sequence.grid(used, sequence.scores(used.scores["paper"]))
        small = [setting for setting in grid if used.losses(setting).mean() <= 0.03]
        guess = min(small, key=lambda setting: TokensCost().of(used, setting))
        broken += held_out.losses(guess).mean() > 0.03
    assert broken > 2 * (1 - CONFIDENCE) * 100


def test_the_command_prints_and_keeps(requests, tmp_path, capsys):
    (tmp_path / "in.json").write_text(json.dumps({**requests.as_json(), "loss": "of a test"}))
    kept = tmp_path / "kept.json"
    calibration_splits.main([
        str(tmp_path / "in.json"), "--splits", "5", "--max-loss", "5%", "--keep", str(kept),
    ])  # fmt: skip
    assert "800 requests; loss: of a test" in capsys.readouterr().out
    found = json.loads(kept.read_text())
    assert found["splits"][0]["splits"] == 5
    assert len(Requests.parse(found)) == 800
    assert found["machine"]
