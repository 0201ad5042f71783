"""Start-ups that must fail, by the real command, and the help that shows the flags."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.server import COMMON_FLAGS, run_vllm
from vllm_sgl.config import SGLConfig


@pytest.fixture(scope="module")
def run(qwen2_pair):
    """name -> the finished command. Most of the time goes into imports, so two run side by side."""
    small, large = map(str, qwen2_pair)
    serve = ("serve", large, *COMMON_FLAGS)
    commands = {
        "help": ("serve", "--help=SGL"),
        "missing": (*serve, f"--sgl-small={large}-missing"),
        "alone": (*serve, "--sgl-retention=0.5"),
        "servers": (*serve, f"--sgl-small={small}", "--api-server-count=2"),
    }
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(run_vllm, *arguments) for name, arguments in commands.items()}
    return {name: future.result() for name, future in futures.items()}


def test_help_lists_every_flag(run):
    assert run["help"].returncode == 0
    for name in SGLConfig.model_fields:
        assert "--sgl-" + name.replace("_", "-") in run["help"].stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", ("--sgl-small", "large-qwen2-missing", "no model there")),
        ("alone", ("--sgl-retention", "--sgl-small")),
        ("servers", ("--api-server-count 2", "use 1")),
    ],
)
def test_bad_start_ends_with_a_reason(run, name, words):
    assert run[name].returncode == 1
    error = run[name].stdout.rpartition("ValueError: ")[2]
    for word in words:
        assert word in error
