"""A pair started without any memory flag, inside a memory limit."""

from pathlib import Path

import pytest

from tests.hard.scale import say
from tests.serve.asking import ask
from tests.support.container import container
from tests.support.server import Server, run_vllm

GIB = 1 << 30
SHIPPED = Path("models/signs-small"), Path("models/signs-large")


def test_the_shipped_pair_starts_in_six_gib(tmp_path):
    small, large = SHIPPED
    flags = ["--trust-remote-code", f"--sgl-small={small}"]  # README's shortest command
    with container(6 * GIB) as limited:
        with Server(large, tmp_path / "log", flags, common=(), inside=limited.command) as server:
            assert ask(server, "How many signs are there?", 1).sgl["visual_tokens"] > 0
            assert "6.00 GiB on this container" in server.log_text()
        say(f"the shipped pair in 6 GiB: {limited.most_used() / GIB:.2f} GiB at most")
        assert limited.most_used() < 6 * GIB


@pytest.mark.parametrize("gib", [2])
def test_a_limit_that_is_too_small_is_refused_with_the_numbers(gib):
    small, large = SHIPPED
    arguments = ("serve", str(large), "--trust-remote-code", f"--sgl-small={small}", "--port=0")
    with container(gib * GIB) as limited:
        ended = run_vllm(*arguments, inside=limited.command)
    assert ended.returncode == 1
    error = ended.stdout.rpartition("ValueError: ")[2]
    assert f"({gib:.2f} GiB in all" in error
    assert "not enough memory for both engines on this container" in error
    assert "--sgl-small-memory (now auto), --kv-cache-memory-bytes, --gpu-memory-utilization" in error
