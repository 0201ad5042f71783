"""Kernels beyond their results: they compile for GPUs, and CPU users need no Triton."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from vllm_sgl.kernels.attention_mass import attention_mass, warm_up
from vllm_sgl.kernels.gather_visual import gather_visual

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not find_spec("triton"), reason="needs triton: pip install triton")
def test_kernels_compile(tmp_path):
    """The interpreter takes code that the compiler does not: compile for GPUs that need not be there."""
    result = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "compile_for.py"), "80", "90", "100"],
        cwd=tmp_path,
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr[-20000:]


@pytest.mark.skipif(not find_spec("triton"), reason="needs triton: pip install triton")
def test_no_variant_is_compiled_after_the_warm_up():
    result = subprocess.run(
        [sys.executable, "-m", "tests.kernels.variants"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    assert result.stdout.count("12 variants, of which batches used 12") == 7


def test_nothing_to_warm_up_on_a_cpu(monkeypatch):
    monkeypatch.setattr("vllm_sgl.kernels._triton._has_triton", lambda: False)
    warm_up(torch.zeros(1, 2, 16, 8), heads=2, lanes=1)
    with pytest.raises(ImportError, match="attention_mass on meta"):
        warm_up(torch.zeros(1, 2, 16, 8, device="meta"), heads=2, lanes=1)


def test_without_triton(monkeypatch):
    monkeypatch.setattr("vllm_sgl.kernels._triton._has_triton", lambda: False)
    tensor = torch.zeros(2, 3, 4, device="meta")
    for operation in (attention_mass, gather_visual):
        with pytest.raises(ImportError, match=rf"{operation.__name__} on meta .*pip install triton"):
            operation(tensor)


def test_a_cpu_tensor_needs_no_triton(tmp_path):
    code = """
import sys
sys.modules["triton"] = None  # importing it fails
import torch
from vllm_sgl.kernels.gather_visual import gather_visual
import vllm_sgl.kernels.attention_mass
assert gather_visual(torch.eye(3), torch.tensor([2])).tolist() == [[0, 0, 1]]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)
