"""`python -m benchmarks.shapes --quick`, end to end: a plain server and one of SGL, every shape."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.shapes.traffic import SHAPES

ROOT = Path(__file__).parents[2]


@pytest.mark.nightly("benchmarks.shapes asks real servers in every shape of traffic, and plain vLLM reads")
def test_every_shape_is_measured(tmp_path):
    command = [sys.executable, "-m", "benchmarks.shapes", "--quick", "--settings", "35% tiles"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-5000:]
    result = json.loads((tmp_path / "shapes.json").read_text())
    assert {row["shape"] for row in result["rows"]} == set(SHAPES)
    pruned = [row for row in result["rows"] if "prune" in row.get("decisions", ())]
    assert {row["setting"] for row in pruned} == {"35% tiles"}
    again = next(r for r in result["rows"] if r["part"] == "again" and r["setting"] == "plain")
    assert again["cached_share"] > 0.5  # what repeats is known; nothing else is
    fresh = next(r for r in result["rows"] if r["part"] == "first" and r["setting"] == "plain")
    assert fresh["cached_share"] == 0
    assert "| open-loop: 1.1 of plain's capacity, image" in (tmp_path / "shapes.md").read_text()
