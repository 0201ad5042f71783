"""What the documentation says of the code is so: flags, keys, fields, reasons, metrics, messages."""

import ast
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt
from prometheus_client import CollectorRegistry

from vllm_sgl.config import FLAG_PREFIX, SGLConfig, named
from vllm_sgl.core import WIRE_FIELDS, Reason
from vllm_sgl.pair.known import SERIES, table
from vllm_sgl.request.options import RequestOptions
from vllm_sgl.serve.headers import header_name
from vllm_sgl.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Cell(NamedTuple):
    """text: without markup. code: what of it is in backticks, one string each."""

    text: str
    code: list[str]


def tables(page: Path, heading: str) -> Iterator[list[Cell]]:
    """Every row, but the heading, of a page's tables whose first column has this heading."""
    rows: list[list[Cell]] = []
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    for opening, inside in pairwise(tokens):
        if opening.type == "table_open":
            rows = []
        elif opening.type == "tr_open":
            rows.append([])
        elif opening.type in ("th_open", "td_open"):
            code = [part.content for part in inside.children if part.type == "code_inline"]
            rows[-1].append(Cell("".join(part.content for part in inside.children), code))
        elif opening.type == "table_close" and rows[0][0].text == heading:
            yield from rows[1:]


def first_codes(page: str, heading: str) -> list[str]:
    """What the first column's cells name."""
    return [row[0].code[0] for row in tables(DOCS / page, heading)]


def test_the_table_of_flags_is_that_of_the_settings():
    flags = [flag.split()[0] for flag in first_codes("serving.md", "flag")]
    assert sorted(flags) == sorted(named(name, FLAG_PREFIX) for name in SGLConfig.model_fields)


def test_defaults_of_flags():
    expected = SGLConfig(small="S")
    names = {named(name, FLAG_PREFIX): name for name in SGLConfig.model_fields}
    for flag, default, _ in tables(DOCS / "serving.md", "flag"):
        name = names[flag.code[0].split()[0]]
        if SGLConfig.model_fields[name].is_required():
            assert default.text == ""
            continue
        value = json.loads(default.text) if default.text.startswith("{") else default.text
        assert getattr(SGLConfig.parse({"small": "S", name: value}), name) == getattr(expected, name), name


def test_the_table_of_keys_is_that_of_a_request():
    keys = ["sgl_" + name for name in RequestOptions.model_fields]
    assert sorted(first_codes("serving.md", "key")) == sorted(keys)


def test_the_table_of_response_fields_is_that_of_the_report():
    assert sorted(first_codes("serving.md", "field")) == sorted(WIRE_FIELDS)


def test_the_headers_of_response_fields_are_those_that_are_sent():
    for field, header, _ in tables(DOCS / "serving.md", "field"):
        assert header.code == [header_name(field.code[0])]


def test_the_example_of_a_report_has_every_field():
    (example,) = re.findall(
        r"```json\n(\{\"decision\".*?\})\n```", (DOCS / "serving.md").read_text(), re.DOTALL
    )
    report = json.loads(example)
    assert sorted(report) == sorted(WIRE_FIELDS)
    assert report["score"] == pytest.approx((report["confidence"] + report["consistency"]) / 2)
    assert report["kept_tokens"] == int(SGLConfig(small="S").retention * report["visual_tokens"])


def test_the_table_of_reasons_is_complete():
    reasons = [value for name, value in vars(Reason).items() if name.isupper()]
    assert sorted(first_codes("serving.md", "reason")) == sorted(reasons)


def test_the_table_of_metrics_is_complete():
    registry = CollectorRegistry()
    Metrics(registry)
    there = {
        family.name + "_total" * (family.type == "counter"): family.type for family in registry.collect()
    }
    said = {row[0].code[0]: row[1].text.split(",")[0] for row in tables(DOCS / "serving.md", "metric")}
    assert said == there


def texts() -> Iterator[str]:
    """Every string of the package, with a gap where a value is put in."""
    for file in (ROOT / "vllm_sgl").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def messages() -> list[str]:
    return [code for row in tables(DOCS / "troubleshooting.md", "message") for code in row[0].code]


def test_quoted_messages_are_printed_by_the_code():
    known = list(texts())
    for message in messages():
        pattern = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)
        assert any(pattern.search(text) for text in known), message


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("commands/calibrate/*.py", "UsageError"),
        ("telemetry/request_log.py", "ValueError"),
        ("serve/profiles.py", "ValueError"),
    ],
)
def test_errors_that_users_meet_are_on_the_page(where, error):
    """Every text that is raised there, but those that only say in front of another one where it was. Rows
    that would stand for any error do not count."""
    telling = [message for message in messages() if len(re.findall(r"\w+", message)) > 2]
    patterns = [re.compile(".*".join(map(re.escape, one.split("..."))), re.DOTALL) for one in telling]
    raised = [text for file in (ROOT / "vllm_sgl").glob(where) for text in raises(file, error)]
    assert raised
    for text in raised:
        assert any(pattern.search(text) for pattern in patterns), text


def raises(file: Path, error: str) -> Iterator[str]:
    """Texts of this error that a file raises, with a gap where a value is put in."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = node.exc.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            said = "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in parts)
            if ast.unparse(node.exc.func) == error and re.search(r"\w{3}", said):
                yield said


def test_there_are_messages():
    assert len(messages()) > 15


@pytest.mark.parametrize(("page", "most"), [("README.md", 130), ("docs/structure.md", 60)])
def test_pages_stay_short(page, most):
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= most


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in sorted(DOCS.glob("*.md")):
        assert f"(docs/{page.name})" in readme


def test_the_table_of_series_is_what_the_command_prints():
    lines = [line.strip() for line in (DOCS / "families.md").read_text(encoding="utf-8").splitlines()]
    printed = table().partition("\n\n")[0].splitlines()
    start = lines.index(printed[0])
    assert lines[start : start + len(printed)] == printed


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.name)
def test_the_readme_names_every_series(series):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = series.name.partition(" (")[0].removesuffix(" MoE").split(", ")
    assert all(name in readme for name in names)
