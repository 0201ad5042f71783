"""`python -m benchmarks.serve` with its smallest presets, end to end: four real servers under real load."""

import json
import math
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.serve import results
from benchmarks.serve.answers import READS
from benchmarks.serve.presets import PRESETS
from benchmarks.serve.settings import PLAIN

pytestmark = pytest.mark.nightly("the whole of benchmarks/serve, over eight servers: for a change of it")

ROOT = Path(__file__).parents[2]


class Finished:
    """A run: what it printed, and what it wrote."""

    def __init__(self, name: str, out: Path) -> None:
        self.preset, self.out = PRESETS[name], out
        command = [sys.executable, "-m", "benchmarks.serve", "--preset", name, "--out", str(out)]
        command += ["--work", str(out / "work")]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            timer = threading.Timer(1500, child.terminate)  # with its servers
            timer.start()
            self.said, error = child.communicate()
            timer.cancel()
        assert child.returncode == 0, error[-5000:]
        self.result = json.loads((out / "result.json").read_text())

    @property
    def points(self) -> int:
        return len(self.preset.guided) * len(self.preset.loads)


@pytest.fixture(scope="module", params=["quick", "signs-quick"])
def finished(request, tmp_path_factory):
    return Finished(request.param, tmp_path_factory.mktemp(request.param))


def test_every_point_is_measured(finished):
    preset, result = finished.preset, finished.result
    assert result["finished"]
    points = [(row["setting"], row["clients"]) for row in result["rows"]]
    assert sorted(points) == sorted((str(s), n) for n in preset.loads for s in preset.guided)
    asked = Counter((run["step"]["setting"]["method"], run["step"]["clients"]) for run in result["runs"])
    for clients in preset.loads:
        assert asked["default", clients] == 1
        assert asked["plain", clients] == 1 + math.ceil(len(preset.settings) / 5)
        assert asked["sgl", clients] == len(preset.guided)
    assert len(result["beside"]) == (2 + len(preset.controls)) * len(preset.loads)


def test_rows_agree_with_the_requests(finished):
    for row in finished.result["rows"]:
        bypass = row["retention"] == 1 and not row["exits"]
        assert row["exits"] or row["exit_share"] == 0
        assert (row["guide_seconds"] is None) == bypass
        assert (row["ideal"] == 1) == bypass
        speed_up = row["figures"]["throughput"]["value"]
        assert 0 < speed_up < 100
        assert row["efficiency"] == pytest.approx(speed_up / row["ideal"])
        assert row["figures"]["throughput"]["error"] > 0
        assert 0 < row["beside_default_layout"]["throughput"] < 100
        assert row["cached_share"] < 0.5  # the template at most: no picture was known


def test_kept_tokens_are_what_was_asked(finished):
    preset = finished.preset
    for row in finished.result["rows"]:
        if preset.asked.fixed_length and row["exit_share"] < 1:
            assert row["kept_tokens"] == max(1, math.floor(row["retention"] * preset.pair.visual_tokens))
        elif not row["exits"]:  # of images with 160 to 208 visual tokens
            assert 160 * row["retention"] - 1 <= row["kept_tokens"] <= 208 * row["retention"]


def test_component_times(finished):
    by_clients = finished.result["part_times"]
    assert by_clients.keys() == {str(clients) for clients in finished.preset.loads}
    for parts in by_clients.values():
        assert all(0 < parts[name] < 60 for name in ("small_language", "consistency"))
        assert parts["large_language"].keys() == {"1.0", "0.35"}
        assert all(0 < seconds < 60 for seconds in parts["large_language"].values())


def test_servers_are_laid_out_alike_but_for_the_one_in_vllms_default(finished):
    """By the processes that vLLM's own lines name."""
    assert finished.result["layouts"].keys() == {"plain, small", "default", "guided"}
    for side, worker in (("plain", False), ("small", False), ("guided", False), ("default", True)):
        log = (finished.out / "work" / f"serve-{side}.log").read_text()
        assert "EngineCore" in log
        assert ("(Worker" in log) == worker, side


def test_answers_stand_beside_every_point(finished):
    """Right ones where they are known: plain reads, chance and few pixels do not."""
    curve = finished.result["curve"]
    if not finished.preset.asked.known:
        assert curve == []
        return
    settings = [PLAIN, *finished.preset.settings]
    assert len(curve) == len(settings) * len(finished.preset.loads)
    assert all(point["seconds"] > 0 for point in curve)
    questions = sum(finished.preset.loads.values())
    accuracy = {point["name"]: point["accuracy"]["value"] for point in curve}
    assert accuracy.keys() == {str(setting) for setting in settings}
    assert {point["accuracy"]["n"] for point in curve} == {questions}
    assert accuracy["plain"] >= READS
    # Layout and a guide without pruning change no answer; R = 1 without exits is plain vLLM.
    assert accuracy["plain, vLLM's default layout"] == accuracy["R=1, exits off"] == accuracy["plain"]
    assert accuracy["R=0.35, exits off"] >= accuracy["plain"] - 2 / questions
    assert accuracy["random, R=0.35"] < accuracy["plain"]
    assert accuracy["downsampled, R=0.35"] < accuracy["plain"]


def test_table_and_pictures(finished):
    lines = finished.said.splitlines()
    assert sum(line.startswith("| ") for line in lines) >= finished.points
    assert any("accuracy %" in line for line in lines) == finished.preset.asked.known
    names = ["speed-up", "efficiency", "time", *(["accuracy"] if finished.preset.asked.known else [])]
    for name in names:
        with Image.open(finished.out / f"{name}.png") as picture:
            assert picture.width > 1000


def test_a_written_run_can_be_figured_again(finished, tmp_path):
    """Nothing is measured then, and the same arithmetic gives the same figures."""
    stored = json.loads((finished.out / "result.json").read_text())
    stored["rows"], stored["beside"], stored["noise"] = [], [], {}
    (tmp_path / "result.json").write_text(json.dumps(stored))
    results.again(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == finished.result
    assert (tmp_path / "speed-up.png").stat().st_size > 10_000


def test_a_result_is_not_worse_than_itself(finished):
    path = str(finished.out / "result.json")
    command = [sys.executable, "-m", "benchmarks.compare", path, path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "worse: 0" in done.stdout
