"""Engines that a Python program builds of settings in ``additional_config``, as servers around vLLM do."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHDYNAMO_DISABLE": "1"}
    for name in ("SGL_VLLM_ACTIVE", "VLLM_PLUGINS"):
        environment.pop(name, None)
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)


def test_an_engine_built_as_ray_serve_builds_it_is_guided(qwen2_pair):
    done = run("-m", "tests.offline.python_program", *qwen2_pair)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    found = json.loads(line.removeprefix("RESULT "))
    assert (found["decision"], found["visual"], found["kept"]) == ("prune", 112, 28)
    assert "generate" in found["tasks"]
    assert found["counted"] == found["answered"] > 0  # the program's own class still sees every output
