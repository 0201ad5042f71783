"""Start-ups that must fail, by the real command, and the help that shows the flags."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.server import COMMON_FLAGS, START_TIMEOUT, run_vllm
from vllm_sgl.config import FLAG_PREFIX, SGLConfig, named


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
        "undone": (*serve, f"--sgl-small={small}", '--sgl-small-args={"model": "other"}'),
    }
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(run_vllm, *arguments) for name, arguments in commands.items()}
    return {name: future.result() for name, future in futures.items()}


def test_help_lists_every_flag(run):
    assert run["help"].returncode == 0
    for name in SGLConfig.model_fields:
        assert named(name, FLAG_PREFIX) in run["help"].stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", ("--sgl-small", "large-qwen2-missing", "no model there")),
        ("alone", ("--sgl-retention", "--sgl-small")),
        ("servers", ("--api-server-count 2", "use 1")),
        ("undone", ("SGL cannot start: --sgl-small-args: model is set by the guide",)),
    ],
)
def test_bad_start_ends_with_a_reason(run, name, words):
    """Its text is the last thing that is said; nobody has to read a traceback."""
    assert run[name].returncode == 1
    assert "Traceback" not in run[name].stdout
    error = run[name].stdout.rpartition("\nvllm")[2]
    for word in words:
        assert word in error
    if "cannot start" in error:
        assert "\n" not in error.strip()  # one line, whatever lines a library's words have


def test_an_engine_that_does_not_start_is_named(qwen2_pair, tmp_path):
    """vLLM's words for a bad checkpoint are the same whichever engine it is of."""
    small, large = qwen2_pair
    broken = shutil.copytree(small, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    ended = run_vllm("serve", str(large), f"--sgl-small={broken}", *COMMON_FLAGS, timeout=START_TIMEOUT)
    assert ended.returncode == 1
    last = ended.stdout.strip().splitlines()[-1]
    assert last.startswith(
        f"vllm serve: SGL cannot start: the small engine (--sgl-small {broken}) did not start"
    )
    assert "(SmallEngineCore pid=" in ended.stdout
