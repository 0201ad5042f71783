"""Which servers are laid out how: flags and environment of their processes."""

from pathlib import Path

import pytest

from benchmarks.support.pair import QUICK, layouts, signs
from benchmarks.support.process_layout import LIKE_SGL
from benchmarks.support.workspace import Workspace


@pytest.mark.parametrize(
    ("cpu", "side", "alike"),
    [
        (True, "plain", True),
        (True, "small", True),
        (True, "default", False),
        (True, "guided", False),  # SGL sees to it itself
        (False, "plain", False),
        (False, "small", False),
    ],
)
def test_what_is_compared_with_sgl_is_laid_out_like_it_on_a_cpu(cpu, side, alike):
    server = QUICK.server(Workspace(cpu, Path("work"), deadline=0), side)
    flags = [flag for flag in server._command if "executor" in flag]
    assert flags == (list(LIKE_SGL.flags) if alike else [])
    assert server._environment == (LIKE_SGL.environment if alike else {})


def test_reports_name_every_side():
    assert " ".join(layouts(cpu=True)) == "plain, small default guided"
    assert list(layouts(cpu=False)) == ["all servers"]


def test_a_server_may_be_run_by_another_module():
    workspace = Workspace(True, Path("work"), deadline=0)
    assert "vllm.entrypoints.cli.main" in QUICK.server(workspace, "guided")._command
    assert "a.module" in QUICK.server(workspace, "guided", "a.module")._command


def test_pairs_of_readers_take_two_images_and_are_always_guided():
    pair = signs("26B+2B", gflop=14)
    command = pair.server(Workspace(True, Path("work"), deadline=0), "guided")._command
    assert '--limit-mm-per-prompt={"image": 2}' in command
    assert "--sgl-break-even=off" in command
    assert str(Path("work") / "signs-large-26B+2B") in command
    assert f"--sgl-small={Path('work') / 'signs-small-26B+2B'}" in command
