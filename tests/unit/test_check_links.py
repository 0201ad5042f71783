"""The check of the documentation's links: every kind of finding, and what it leaves alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.check_links import check

SCRIPT = Path(__file__).parents[2] / "tools" / "check_links.py"


@pytest.fixture
def findings(tmp_path):
    """Writes README.md into a made-up repository and returns what the check says of it."""
    (tmp_path / ".gitignore").write_text("demo-out/\n")
    for file in (
        "docs/serving.md",
        "docs/two words.md",
        "vllm_sgl/core.py",
        "vllm_sgl/guide/base.py",
        "models/curve.png",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "docs" / "serving.md").write_text("# Serving `vllm_xargs`, *well*\n\n## Keys\n\n## Keys\n")

    def write_and_check(text: str, page: str = "README.md") -> list[str]:
        (tmp_path / page).write_text(text)
        return check(tmp_path)

    return write_and_check


BROKEN = [
    ("[a](docs/gone.md)", "link: docs/gone.md: no such file"),
    ("[a][b]\n\n[b]: docs/gone.md", "link: docs/gone.md: no such file"),
    ("| a |\n|---|\n| [a](gone.md) |", "link: gone.md: no such file"),
    ("[a](/docs/serving.md)", "link: /docs/serving.md: leads out of the repository"),
    ("[a](../other/README.md)", "link: ../other/README.md: leads out of the repository"),
    ("[a](#kies)\n\n# Keys", "link: #kies: no such heading there; the nearest is #keys"),
    ("[a](docs/serving.md#keys-2)", "link: docs/serving.md#keys-2: no such heading"),
    ("[a](docs/serving.md#Keys)", "link: docs/serving.md#Keys: no such heading"),
    ("[a](vllm_sgl/guide/base.py#L3)", "link: vllm_sgl/guide/base.py#L3: no such heading"),
    ("![a](models/gone.png)", "image: models/gone.png: no such file"),
    ("[![a](gone.png)](docs/serving.md)", "image: gone.png: no such file"),
    ("`vllm_sgl/gone.py`", "path: vllm_sgl/gone.py: no such file or folder"),
    ("`guide/gone.py: Guide`", "path: guide/gone.py: no such file or folder"),
    ("`gone/base.py`", "path: gone/base.py: no such file or folder"),
    ("`gone.py`", "path: gone.py: no such file or folder"),
    ("`gone/deeper/`", "path: gone/deeper/: no such file or folder"),
    ("`gone/`", "path: gone/: no such file or folder"),
    ("`docs/serving.md/`", "path: docs/serving.md/: no such file or folder"),
    ("`docs/gone`", "path: docs/gone: no such file or folder"),
    ("`models/*.json`", "path: models/*.json: no such file or folder"),
    ('<a href="docs/serving.md">a</a>', "html: docs/serving.md: HTML is not checked"),
    ('<p>\n<img src="models/curve.png">\n</p>', "html: models/curve.png: HTML is not checked"),
]

SOUND = [
    "[a](docs/serving.md) [b](docs) [c](docs/two%20words.md) [d](<docs/two words.md>)",
    "[a](docs/serving.md#serving-vllm_xargs-well) [b](docs/serving.md#keys) [c](docs/serving.md#keys-1)",
    "# Über `x`: 2 + 2\n\n[a](#über-x-2--2)",
    "[a](https://example.org/gone.md) [b](mailto:a@example.org) <https://example.org>",
    "![a](models/curve.png)",
    "`core.py` `docs/serving.md` `guide/base.py` `guide/` `vllm_sgl/guide` `docs/*.md` `models/*`",
    "`demo-out/` `demo-out/explain.png`",
    "`OpenGVLab/InternVL2-26B` `/v1/chat/completions` `text/event-stream` `1/2` `a / b` `config.json`",
    "```\n[a](gone.md) `docs/gone.md`\n```",
]


@pytest.mark.parametrize(("text", "finding"), BROKEN)
def test_broken(findings, text, finding):
    (found,) = findings(text)
    where, _, what = found.partition(": ")
    assert where.startswith("README.md:")
    assert what.startswith(finding)


@pytest.mark.parametrize("text", SOUND)
def test_sound(findings, text):
    assert findings(text) == []


def test_links_start_at_their_own_page(findings):
    assert findings("[a](serving.md) [b](../README.md) `two*.md` `../models/curve.png`", "docs/other.md") == [
        "docs/other.md:1: link: ../README.md: no such file; correct the path, relative to this page"
    ]


def test_the_line_is_that_of_the_link(findings):
    text = (
        "# A\n\ntwo\nlines, [a](gone.md)\n\n- one\n- two `docs/gone`\n\n| a |\n|---|\n| b |\n| ![c](gone) |"
    )
    assert [found.split(":")[1] for found in findings(text)] == ["4", "7", "12"]


def test_exit_status_and_output(tmp_path):
    def run() -> subprocess.CompletedProcess:
        command = [sys.executable, str(SCRIPT), str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    (tmp_path / "README.md").write_text("# A\n\n[a](#a)\n")
    assert run().returncode == 0
    (tmp_path / "CHANGELOG.md").write_text("[a](README.md#b)\n")
    failed = run()
    assert failed.returncode == 1
    assert failed.stdout.startswith("CHANGELOG.md:1: link: README.md#b: no such heading")
