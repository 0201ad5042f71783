import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.made_up_vllm import VLLM, write
from tools.check_seams import main
from tools.seams.compare import compare
from tools.seams.named import KNOWN, architectures, named
from tools.seams.source import installed, open_source
from vllm_sgl.families import FAMILIES

MODELS = "vllm/model_executor/models/"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def trees(tmp_path) -> Path:
    """Folders ours (a repository), old and new, and new as a wheel."""
    write(tmp_path / "ours", {"vllm_sgl/__init__.py": "", "vllm_sgl/a.py": "from vllm import Params"})
    write(tmp_path / "old", VLLM)
    write(tmp_path / "new", {**VLLM, "vllm/__init__.py": "", "vllm/_version.py": "__version__ = '2.0'"})
    with ZipFile(tmp_path / "new.whl", "w") as wheel:
        for file in (tmp_path / "new").rglob("*.py"):
            wheel.write(file, file.relative_to(tmp_path / "new"))
    return tmp_path


@pytest.mark.parametrize("given", ["new", "new/vllm", "new.whl"])
def test_output_and_exit_status(trees, capsys, given):
    old = ["--old", str(trees / "old")]
    assert main([str(trees / "old" / "vllm"), *old], root=trees / "ours") == 0
    assert capsys.readouterr().out == "vLLM 1.0 and 1.0: 1 seams in 1 files of vllm_sgl/, nothing to change\n"
    assert main([str(trees / given), *old, "--list"], root=trees / "ours") == 1
    assert capsys.readouterr().out == (
        "vllm_sgl/a.py:\n"
        "    vllm:Params\n"
        "vllm_sgl/a.py:1: missing: vllm:Params: now in vllm.params\n"
        "vLLM 1.0 and 2.0: 1 seams in 1 files of vllm_sgl/, 1 to look at\n"
    )


BAD_INPUT = [
    ("gone", "gone: expected a wheel or a folder with vllm/ in it, found no such file"),
    ("ours", "ours: expected vllm/__init__.py in it, found none: give a wheel or sources of vllm"),
    (
        "old/vllm/params.py",
        "old/vllm/params.py: expected a wheel (.whl) or a folder, received a file that is no zip archive: "
        "unpack it and give the folder",
    ),
]


@pytest.mark.parametrize(("given", "message"), BAD_INPUT)
def test_bad_input_is_told_from_findings(trees, capsys, monkeypatch, given, message):
    monkeypatch.chdir(trees)
    assert main([given, "--old", "old"], root=trees / "ours") == 2
    assert capsys.readouterr().err == f"check_seams: {message}\n"


def test_places_that_name_an_architecture_of_ours(trees, capsys):
    """Where a variant, which has another name, would get nothing: unless it is known how it does."""
    families = 'FAMILIES = {"TheModel": "file", "Other": "file"}'
    write(trees / "ours", {"vllm_sgl/a.py": "", "vllm_sgl/families/__init__.py": families})
    tables = {
        "vllm/config.py": 'DEFAULTS = {\n    "TheModel": 1,\n    "Nobodys": 2,\n}\nNAME = "TheModelTwo"',
        "vllm/model_executor/models/config.py": 'MAP = {"TheModel": 1}',
        "vllm/model_executor/models/registry.py": "MODELS = ['TheModel', 'Other']",
    }
    write(trees / "new", {**VLLM, **tables})
    assert main([str(trees / "new"), "--old", str(trees / "old")], root=trees / "ours") == 1
    first, _ = capsys.readouterr().out.splitlines()
    file = "vllm_sgl/host/start/named_settings.py"
    assert first == f"{file}: named: vllm/config.py:2 names TheModel: give its variant the same there"


def test_every_place_that_names_an_architecture_of_ours_is_known():
    ours, vllm = open_source("vllm_sgl", REPOSITORY), installed("vllm")
    assert set(architectures(ours)) == set(FAMILIES)
    assert named(ours, vllm).keys() <= KNOWN.keys()
    assert "Qwen3_5ForConditionalGeneration" in {name for _, name in named(ours, vllm)[f"{MODELS}config.py"]}


def test_no_seam_of_ours_differs_from_the_installed_vllm():
    """Every import is there, every call is one that vLLM takes, every patched function has its parameters."""
    result = compare(open_source("vllm_sgl", REPOSITORY), installed("vllm"), installed("vllm"))
    assert result.findings == []
    # One of each: imported, constructed, called, read, overridden, patched.
    assert {
        "vllm.config:VllmConfig",
        "vllm.engine.arg_utils:AsyncEngineArgs",
        "vllm.model_executor.models.registry:_ModelRegistry.register_model",
        "vllm.config.model:ModelConfig.max_model_len",
        "vllm.v1.engine.async_llm:AsyncLLM.generate",
        "vllm.v1.engine.async_llm:AsyncLLM.from_vllm_config",
    } <= set().union(*result.seams.values())


def test_a_change_in_the_installed_vllm_is_found():
    """On the true tree: a patched class method with a new parameter in front of those that ours expects."""
    old = installed("vllm")
    path = old.file("vllm.v1.engine.async_llm")
    before = b"def from_vllm_config(\n        cls,\n"
    text = old.read(path)
    assert text.count(before) == 1
    new = replace(old, read=lambda p: text.replace(before, before + b"how,") if p == path else old.read(p))
    found = compare(open_source("vllm_sgl", REPOSITORY), old, new).findings
    assert {finding.seam for finding in found} == {"vllm.v1.engine.async_llm:AsyncLLM.from_vllm_config"}
    patched = "takes cls, how; ours expects cls, vllm_config first"
    assert [f.file for f in found if f.text == patched] == ["vllm_sgl/host/start/async_llm.py"]


def test_runs_as_a_file(trees):
    command = [sys.executable, str(REPOSITORY / "tools" / "check_seams.py"), "old", "--old", "old"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=trees)
    # The seams of the repository itself: this vLLM has hardly any of them.
    assert result.returncode == 1
    assert "vllm_sgl/host/start/async_llm.py:" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("vLLM 1.0 and 1.0: ")


def test_nothing_is_imported(trees):
    program = (
        "import sys; from tools.check_seams import main; main(['old']); "
        "print({'vllm', 'torch'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=trees, env=environment)
    assert result.stdout.endswith("set()\n")
