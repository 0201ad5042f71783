"""`python -m benchmarks.serve --preset quick`, end to end: three real servers under real load."""

import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.serve.presets import PRESETS

ROOT = Path(__file__).parents[2]
QUICK = PRESETS["quick"]
POINTS = len(QUICK.settings) * len(QUICK.loads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("serve")
    command = [sys.executable, "-m", "benchmarks.serve", "--preset", "quick", "--out", str(out)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        timer = threading.Timer(900, child.terminate)  # with its servers
        timer.start()
        said, error = child.communicate()
        timer.cancel()
    assert child.returncode == 0, error[-5000:]
    return said, json.loads((out / "result.json").read_text()), out


def test_every_point_is_measured(finished):
    _, result, _ = finished
    assert result["finished"]
    assert result["preset"] == "quick"
    points = [(row["retention"], row["exits"], row["clients"]) for row in result["rows"]]
    expected = [(s.retention, s.exits, clients) for clients in QUICK.loads for s in QUICK.settings]
    assert sorted(points) == sorted(expected)
    assert len(result["runs"]) == POINTS + 2 * len(QUICK.loads)


def test_rows_agree_with_the_requests(finished):
    _, result, _ = finished
    for row in result["rows"]:
        kept = max(1, math.floor(row["retention"] * QUICK.pair.visual_tokens))
        if row["exit_share"] < 1:
            assert row["kept_tokens"] == kept
        assert row["exits"] or row["exit_share"] == 0
        bypass = row["retention"] == 1 and not row["exits"]
        assert (row["guide_seconds"] is None) == bypass
        assert (row["ideal"] == 1) == bypass
        speed_up = row["figures"]["throughput"]["value"]
        assert 0 < speed_up < 100
        assert row["efficiency"] == pytest.approx(speed_up / row["ideal"])
        assert row["figures"]["throughput"]["error"] > 0
        assert row["cached_share"] < 0.5  # the template at most: no picture was known
    assert 0 < result["exit_threshold"] < 1


def test_component_times(finished):
    costs = finished[1]["costs"]
    assert all(costs[name] > 0 for name in ("small_prefill", "small_decode", "consistency", "large_decode"))
    assert costs["large_prefill"].keys() == {"1.0", "0.35"}
    assert all(0 < seconds < 60 for seconds in costs["large_prefill"].values())


def test_table_and_pictures(finished):
    said, _, out = finished
    assert sum(line.startswith("| ") for line in said.splitlines()) >= POINTS
    for name in ("speed-up", "efficiency", "time"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 1000


def test_a_result_is_not_worse_than_itself(finished):
    path = str(finished[2] / "result.json")
    command = [sys.executable, "-m", "benchmarks.compare", path, path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "worse: 0" in done.stdout
