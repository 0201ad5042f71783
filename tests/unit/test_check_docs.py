"""The check of the documentation's commands and names: every kind of finding, and what it leaves alone.

It runs once, in a process of its own, over a page for each case: it changes vLLM to take its parsers."""

import sys
from pathlib import Path

import pytest

from tests.support.server import run_command
from tools.docs_check.pages import files
from tools.docs_check.shell import commands

ROOT = Path(__file__).parents[2]

#: (a page, what is found in its last line but the fence's)
BROKEN = [
    ("```\nvllm serve L --sgl-smal S\n```", "vllm serve L: unrecognized arguments: --sgl-smal S"),
    ("```\nvllm serve L --sgl-small S --sgl-retention 2\n```", "--sgl-retention"),
    ("```\nvllm serve L --sgl-retention 0.5\n```", "received --sgl-retention without --sgl-small"),
    ("```\nvllm serve L --sgl-small S --sgl-policy best\n```", "--sgl-policy"),
    ("```\nvllm serve L --max-model-len many\n```", "argument --max-model-len"),
    ("```\nvllm sreve L\n```", "sreve: expected one of"),
    ("```\nvllm-sgl explain L photo.jpg 'What?'\n```", "the following arguments are required: --small"),
    ("```\nvllm-sgl expalin\n```", "expalin: expected one of explain"),
    ("```\npython -m benchmarks.serve --presett gpu\n```", "unrecognized arguments: --presett"),
    ("```\npython -m benchmarks.serve --round 3\n```", "unrecognized arguments: --round"),
    ("```\npython -m benchmarks.gone\n```", "benchmarks.gone"),
    ("```\npython tools/gone.py\n```", "no such file as tools/gone.py"),
    ("```\nmake chekc\n```", "no such target as chekc"),
    ("```\nfoobar --x\n```", "foobar: no program"),
    ("```\npip install 'vllm-sgl[cude]'\n```", "no such extra as cude"),
    ("```\ncurl localhost:8000/v1/completions -d '{\"model\": }'\n```", "Expecting value"),
    ("```\necho 'never closed\n```", "quotation"),
    ("```\nvllm serve L \\\n    --sgl-small S --no-such\n```", "unrecognized arguments: --no-such"),
    ("```\n$ make help\nanything that is printed\n$ make hlep\n```", "no such target as hlep"),
    ("```\nOMP_NUM_THREADS=1 make hlep > log && make help\n```", "no such target as hlep"),
    ("```\ndocker run --gpus all vllm-sgl:0.2.0 L --sgl-smal S\n```", "unrecognized arguments: --sgl-smal S"),
    ("```\nvllm serve L --config gone.yaml --sgl-small S\n```", "gone.yaml"),
    ("    vllm serve L --sgl-smal S", "unrecognized arguments"),
    ("```json\n{\"a\": 1,}\n```", "Expecting property name"),
    ("```python\nfrom vllm_sgl import LLMs\n```", "vllm_sgl has no LLMs"),
    ("```python\nprint(\n```", "was never closed"),
    ("```python\nllm = LLM(sgl_retentoin=1)\n```", "no such key or setting as sgl_retentoin"),
    ("```yaml\nextraArgs: ['--sgl-small', 'S', '--sgl-retention', '2']\n```", "--sgl-retention"),
    ("```yaml\na: [\n```", "while parsing"),
    ("```dockerfile\nRUM pip install vllm-sgl\n```", "RUM: expected one of"),
    ("```dockerfile\nRUN foobar\n```", "foobar: no program"),
    ("```bash\nmake help\n```", "a block of bash: expected one of nothing for a shell's, "),
    ("Set `--sgl-retentoin`.", "no such flag as --sgl-retentoin"),
    ("Set `--sgl-nothing-*`.", "no such flag as --sgl-nothing-*"),
    ("Run `vllm serve --async-engine`.", "no such flag as --async-engine"),
    ("Run `make chekc`.", "no such target as chekc"),
    ("Set `sgl_retentoin` to 1.", "no such key or setting as sgl_retentoin"),
    ("Watch `sgl:request_total`.", "no such metric as sgl:request_total"),
]  # fmt: skip

SOUND = [
    "```\nvllm serve L --sgl-small S --sgl-small-args '{\"max_model_len\": 9}'  # why\n```",
    "```\nvllm serve L --additional-config '{\"sgl\": {\"small\": \"S\"}}'\n```",
    "```\nvllm-sgl --version\nvllm-sgl pairs\nvllm serve --help=SGL\nvllm bench serve --help\n```",
    "```\nvllm-sgl explain L photo.jpg 'A question\nof two lines?' --small S \\\n  --json - > a.json\n```",
    "```\n$ vllm-sgl pairs S L | head -1\nsgl_whatever --no-flag it prints\n```",
    "```\nmake test ARGS='-k name'\npython -m pytest\npython tools/check_links.py\n```",
    "```\npip install 'vllm-sgl[cuda,plot] @ git+https://example.org/vllm-sgl'\nkubectl get pods\n```",
    "```\ndocker run --gpus all -p 8000:8000 registry/vllm-sgl:0.2.0 L --sgl-small S\n```",
    "```\ncurl localhost:8000/v1/completions -d '{\"model\": \"m\"}'\n```",
    "```yaml\n# sgl.yaml\nsgl-small: S\nsgl-retention: 0.2\n```\n\n```\nvllm serve L --config sgl.yaml\n```",
    "```json\n{\"id\": 1}\n{\"id\": 2}\n```",
    "```python\nfrom vllm_sgl import LLM\n\nllm = LLM(..., sgl_retention=0.2)\n```",
    "```dockerfile\nFROM vllm/vllm-openai:v0.32.0\nRUN pip install 'vllm-sgl[plot]'\nCMD [\"L\"]\n```",
    "```text\nvllm serve --no-such sgl_nothing\n```",
    "    kept count = max(1, floor(R * N))",
    "`--sgl-*` `--sgl-small MODEL` `vllm bench throughput --async-engine` `python`",
    "`sgl_retention` `sgl_*` `sgl_small=` `sgl:score` `sgl:requests_total` `sgl:*` `vllm_sgl.LLM` `sgl`",
    "`docker run --shm-size` `kubectl rollout restart` `python -m benchmarks.serve --preset gpu`",
]  # fmt: skip


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """Per page `broken-N` and `sound-N`, and `docs` for what is about all of them."""
    root = tmp_path_factory.mktemp("docs-check")
    (root / "docs").mkdir()
    (root / "CHANGELOG.md").write_text("`--sgl-gone` was a flag.\n")
    for kind, cases in (("broken", [text for text, _ in BROKEN]), ("sound", SOUND)):
        for number, text in enumerate(cases):
            (root / "docs" / f"{kind}-{number}.md").write_text(text + "\n")
    command = [sys.executable, "-m", "tools.check_docs", str(root)]
    done = run_command(command, apart=True)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    found: dict[str, list[tuple[int, str]]] = {}
    for line in done.stdout.splitlines():
        where, _, wrong = line.partition(": ")
        if where.startswith("docs/") and ":" in where:
            page, _, number = where.removeprefix("docs/").partition(".md:")
            found.setdefault(page, []).append((int(number), wrong))
        elif where == "docs/":
            found.setdefault("docs", []).append((0, wrong))
    return found


@pytest.mark.parametrize("number", range(len(BROKEN)), ids=[expected for _, expected in BROKEN])
def test_broken(findings, number):
    text, expected = BROKEN[number]
    ((line, wrong),) = findings[f"broken-{number}"]
    assert expected in wrong
    assert 1 <= line <= len(text.splitlines())


@pytest.mark.parametrize("number", range(len(SOUND)))
def test_sound(findings, number):
    assert findings.get(f"sound-{number}", []) == []


def test_what_is_not_documented_is_found(findings):
    missing = {wrong.partition(":")[0] for _, wrong in findings["docs"]}
    assert {"--sgl-shadow", "sgl_guide_tokens", "--trust-remote-code"} <= missing
    assert not {"--sgl-retention", "sgl_retention", "--json", "--help"} & missing


def test_a_finding_has_its_line(findings):
    place = next(n for n, (text, _) in enumerate(BROKEN) if "hlep\n" in text and text.startswith("```\n$"))
    assert findings[f"broken-{place}"][0][0] == 4


def test_commands_of_a_block():
    text = "A=1 one 'a b' # why\ntwo \\\n  --x | three > file --y && four\n\n# comment\nfive 'over\nlines'\n"
    assert [(line, words) for line, words in commands(text, 10)] == [
        (10, ["one", "a b"]),
        (11, ["two", "--x"]),
        (11, ["three", "--y"]),
        (11, ["four"]),
        (15, ["five", "over\nlines"]),
    ]


def test_files_that_a_page_names(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("```yaml\n# sgl.yaml\na: 1\n```\n\n```\n# no name\nmake\n```\n\n`# b.yaml`\n")
    assert files(page) == {"sgl.yaml": "# sgl.yaml\na: 1\n"}
