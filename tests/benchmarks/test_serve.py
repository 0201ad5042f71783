"""`python -m benchmarks.serve --preset quick`, end to end: three real servers under real load."""

import json
import math
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.serve.presets import PRESETS

ROOT = Path(__file__).parents[2]
QUICK = PRESETS["quick"]
POINTS = len(QUICK.guided) * len(QUICK.loads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("serve")
    command = [sys.executable, "-m", "benchmarks.serve", "--preset", "quick", "--out", str(out)]
    command += ["--work", str(out / "work")]
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
    expected = [(s.retention, s.exits, clients) for clients in QUICK.loads for s in QUICK.guided]
    assert sorted(points) == sorted(expected)
    methods = Counter(run["step"]["setting"]["method"] for run in result["runs"])
    loads = len(QUICK.loads)
    assert methods == {"sgl": POINTS, "plain": 2 * loads, "default": loads}
    assert len(result["plain"]) == 2 * loads


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
        assert 0 < row["beside_default_layout"]["throughput"] < 100
        assert row["cached_share"] < 0.5  # the template at most: no picture was known
    assert 0 < result["exit_threshold"] < 1


def test_component_times(finished):
    by_clients = finished[1]["part_times"]
    assert by_clients.keys() == {"1", "4"}
    for parts in by_clients.values():
        assert all(0 < parts[name] < 60 for name in ("small_language", "consistency"))
        assert parts["large_language"].keys() == {"1.0", "0.35"}
        assert all(0 < seconds < 60 for seconds in parts["large_language"].values())


def test_servers_are_laid_out_alike_but_for_the_one_in_vllms_default(finished):
    """By the processes that vLLM's own start-up lines name."""
    _, result, out = finished
    assert result["layouts"].keys() == {"plain, small", "default", "guided"}
    for side, worker in (("plain", False), ("small", False), ("guided", False), ("default", True)):
        log = (out / "work" / f"serve-{side}.log").read_text()
        assert "EngineCore" in log
        assert ("(Worker" in log) == worker, side


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
