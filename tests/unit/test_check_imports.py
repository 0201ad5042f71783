import subprocess
import sys
from pathlib import Path

import pytest

from tools.check_imports import MAX_LINES, RULES, check

LIGHT_MODULES = [
    path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    for rule in RULES
    if rule.name == "light"
    for path in rule.where
]


@pytest.fixture
def findings(tmp_path):
    """Writes one file of a made-up tree and returns what the check says about that tree."""

    def write_and_check(path: str, text: str) -> list[str]:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return check(tmp_path)

    return write_and_check


FORBIDDEN = [
    ("internals", "vllm_sgl/serve/a.py", "import vllm.v1.engine"),
    ("internals", "vllm_sgl/serve/a.py", "from vllm.v1.engine.async_llm import AsyncLLM"),
    ("internals", "vllm_sgl/serve/a.py", "from vllm.config.model import ModelConfig"),
    ("internals", "vllm_sgl/serve/a.py", "from vllm import platforms"),
    ("internals", "vllm_sgl/serve/a.py", "from vllm import _custom_ops"),
    ("internals", "vllm_sgl/guide/a.py", "def f():\n    import vllm.forward_context"),
    ("internals", "vllm_sgl/guide/a.py", "importlib.import_module('vllm.v1.worker')"),
    ("internals", "vllm_sgl/engine/offline.py", "if TYPE_CHECKING:\n    from vllm.v1 import engine"),
    ("internals", "benchmarks/a.py", "from vllm.engine.arg_utils import EngineArgs"),
    ("light", "vllm_sgl/__init__.py", "import torch"),
    ("light", "vllm_sgl/plugin.py", "from vllm.logger import init_logger"),
    ("light", "vllm_sgl/config.py", "try:\n    import torch.nn\nexcept ImportError:\n    pass"),
    ("light", "vllm_sgl/core.py", "class A:\n    from torch import Tensor"),
    ("light", "vllm_sgl/core.py", "if not TYPE_CHECKING:\n    import torch"),
    ("light", "vllm_sgl/pipeline.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import vllm"),
    ("syntax", "vllm_sgl/serve/a.py", "import ("),
    ("length", "tests/a.py", "pass\n" * (MAX_LINES + 1)),
    ("length", "vllm_sgl/kernels/op/op.cu", "//\n" * (MAX_LINES + 1)),
]

ALLOWED = [
    ("internals", "vllm_sgl/host/a.py", "from vllm.v1.engine.async_llm import AsyncLLM"),
    ("internals", "vllm_sgl/families/a.py", "import vllm.model_executor.models.internvl"),
    ("internals", "tests/host/test_a.py", "import vllm.v1.engine"),
    ("internals", "vllm_sgl/serve/a.py", "import vllm\nimport vllm.config"),
    ("internals", "vllm_sgl/serve/a.py", "from vllm import SamplingParams, __version__, inputs"),
    ("internals", "vllm_sgl/serve/a.py", "from vllm.config import get_current_vllm_config"),
    ("internals", "vllm_sgl/serve/a.py", "from vllm.lora.request import LoRARequest"),
    ("internals", "vllm_sgl/serve/a.py", "from vllm.lora import request"),
    ("light", "vllm_sgl/plugin.py", "def f():\n    import torch, vllm"),
    ("light", "vllm_sgl/plugin.py", "def f():\n    from vllm_sgl.host import async_llm"),
    ("light", "vllm_sgl/config.py", "if typing.TYPE_CHECKING:\n    import torch"),
    ("light", "vllm_sgl/config.py", "import torchmetrics, vllm_sgl.errors"),
    ("light", "vllm_sgl/engine/offline.py", "import torch, vllm"),
    ("length", "tests/a.py", "pass\n" * MAX_LINES),
    ("length", "tests/data.json", "\n" * (MAX_LINES + 1)),
]


def case_id(value: str) -> str:
    return value if len(value) < 100 else "long"


@pytest.mark.parametrize(("rule", "path", "text"), FORBIDDEN, ids=case_id)
def test_forbidden(findings, rule, path, text):
    (finding,) = findings(path, text)
    where, _, message = finding.partition(f": {rule}: ")
    assert where.startswith(f"{path}:")
    assert message


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED, ids=case_id)
def test_allowed(findings, rule, path, text):
    assert findings(path, text) == []


def test_every_rule_has_both_cases():
    for rule in RULES:
        assert rule.name in {name for name, _, _ in FORBIDDEN}
        assert rule.name in {name for name, _, _ in ALLOWED}


def test_a_finding_names_file_line_rule_import_and_remedy(findings):
    assert findings("vllm_sgl/serve/a.py", "import os\n\nfrom vllm.v1 import engine\n") == [
        "vllm_sgl/serve/a.py:3: internals: vllm.v1.engine: "
        "only vllm_sgl/host/, families/, model/ and pair/ reach into vLLM; wrap it there"
    ]


def test_exit_status_and_output(tmp_path):
    def run() -> subprocess.CompletedProcess:
        script = Path(__file__).parents[2] / "tools" / "check_imports.py"
        command = [sys.executable, str(script), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run().returncode == 0
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "a.py").write_text("import vllm.v1\n")
    failed = run()
    assert failed.returncode == 1
    assert failed.stdout.startswith("benchmarks/a.py:1: internals: vllm.v1: ")


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_neither_torch_nor_vllm(module):
    """The rule sees direct imports only; this one also sees what those import in turn."""
    program = f"import {module}, sys; print({{'torch', 'vllm'}} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
