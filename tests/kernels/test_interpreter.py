"""Runs the kernel tests through Triton's interpreter, in a process of their own (see conftest)."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not find_spec("triton"), reason="needs triton: pip install triton")
def test_kernels():
    files = sorted(str(f.relative_to(ROOT)) for f in Path(__file__).parent.glob("test_*_kernel.py"))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    print(result.stdout[-4000:])
    assert result.returncode == 0, result.stdout[-20000:] + result.stderr[-4000:]
