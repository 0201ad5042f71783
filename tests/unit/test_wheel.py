"""The wheel that users install: complete, without tests and tools, and it imports."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # pip leaves build folders behind
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "vllm_sgl", source / "vllm_sgl", ignore=no_caches)
    shutil.copytree(ROOT / "tools", source / "tools", ignore=no_caches)  # not to be packed
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run(
        [*build, "--wheel-dir", str(folder), str(source)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("vllm_sgl-*.whl")
    return found


def test_every_module_and_its_types_are_in_it(wheel):
    with ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
        (points,) = [name for name in packed.namelist() if name.endswith("entry_points.txt")]
        assert "vllm_sgl.plugin:register" in packed.read(points).decode()
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vllm_sgl").rglob("*.py")}
    assert names == ours | {"vllm_sgl/py.typed"}


def test_it_imports_and_its_command_runs(wheel):
    code = (
        "import vllm_sgl, vllm_sgl.kernels, vllm_sgl.plugin, vllm_sgl.cli\n"
        "print(vllm_sgl.kernels.__file__)\n"
        "vllm_sgl.cli.main(['--version'])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={"PYTHONPATH": str(wheel)}, cwd=wheel.parent,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(wheel)), done.stdout
