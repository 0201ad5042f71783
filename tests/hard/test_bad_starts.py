"""Starts that must fail: the last line names the setting or the engine, and no process is left."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hard.scale import say
from tests.support.server import COMMON_FLAGS, START_TIMEOUT, free_port, kill_group, vllm

#: How our own refusals begin.
REFUSED = "SGL cannot start: "


def _config(text: str | bytes) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        (model / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    return damage


def _text_only(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config["llm_config"]))


def _cut_weights(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])


def _no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def _other_shape(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    tensors[name] = torch.zeros(3, 3)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def _no_tokenizer(model: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (model / file).unlink()


#: name -> (what is done to a copy of the small model, what the last line says).
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty config": (_config("{}"), "--sgl-small"),
    "binary config": (_config(bytes(range(256))), "--sgl-small"),
    "config is a list": (_config("[1, 2]"), "--sgl-small"),
    "no config": (lambda model: (model / "config.json").unlink(), "--sgl-small"),
    "text only": (_text_only, "vision-language"),
    "no tokenizer": (_no_tokenizer, "--sgl-small"),
    "cut weights": (_cut_weights, "the small engine (--sgl-small"),
    "no weights": (_no_weights, "the small engine (--sgl-small"),
    "other shape": (_other_shape, "the small engine (--sgl-small"),
}
#: name -> (flags, what the last line says).
FLAGS: dict[str, tuple[list[str], str]] = {
    "retention": (["--sgl-retention=1.5"], "--sgl-retention: expected a number in (0, 1]"),
    "threshold": (["--sgl-exit-threshold=high"], "--sgl-exit-threshold: expected"),
    "arguments": (["--sgl-small-args={1"], "--sgl-small-args"),
    "unknown argument": (['--sgl-small-args={"no_such": 1}'], "no_such"),
    "context": (['--sgl-small-args={"max_model_len": 17}'], "no room for an image"),
    "KV cache": (['--sgl-small-args={"kv_cache_memory_bytes": 1000}'], "0.98 KiB"),
    "cache type": (['--sgl-small-args={"kv_cache_dtype": "fp8"}'], "expected a kv_cache_dtype of auto"),
    "memory": (["--sgl-small-memory=4000GiB"], "not enough memory for both engines"),
    "replicas": (["--data-parallel-size=2"], "--data-parallel-size 2: use 1"),
    "headless": (["--headless"], "--headless"),
}
ALL = {
    "missing": None, "a file": None, "large cut": None, "port": None,
    **dict.fromkeys(BROKEN), **dict.fromkeys(FLAGS),
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_bad_start(qwen2_pair, tmp_path, name):
    small, large = qwen2_pair
    more: list[str] = []
    expected, port = "", free_port()
    with socket.socket() as busy:
        if name == "missing":
            small, expected = tmp_path / "nothing", "no model there"
        elif name == "a file":
            small, expected = small / "config.json", "--sgl-small"
        elif name == "large cut":
            large, expected = shutil.copytree(large, tmp_path / "large"), "the large engine"
            _cut_weights(large)
        elif name == "port":
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            port, expected = busy.getsockname()[1], "ddress already in use"
        elif name in BROKEN:
            small = shutil.copytree(small, tmp_path / "small")
            damage, expected = BROKEN[name]
            damage(small)
        else:
            more, expected = FLAGS[name]
        address = ["--host=127.0.0.1", f"--port={port}"]
        code, output, left = _run(
            vllm("serve", str(large), *address, *COMMON_FLAGS, f"--sgl-small={small}", *more)
        )
    last = [line for line in output.splitlines() if line.strip() and "resource_tracker: " not in line][-1]
    say(f"bad start, {name}: {code}, {last[:300]}")
    assert code not in (0, None)
    assert not left, "processes outlive the start"
    assert expected in last, output[-3000:]
    logged_why = "did not start" in last or "cannot guide" in last  # a core process
    if REFUSED in last and not logged_why:
        assert "Traceback" not in output


def _run(command: list[str]) -> tuple[int | None, str, list[psutil.Process]]:
    """Exit code, what was said, and which of its processes are left."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=START_TIMEOUT)
        left = [other for other in psutil.process_iter() if _session(other) == process.pid]
        return process.returncode, output, psutil.wait_procs(left, timeout=10)[1]
    finally:
        kill_group(process)


def _session(process: psutil.Process) -> int | None:
    """The session that a process belongs to; None where it is gone."""
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None
