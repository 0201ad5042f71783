"""What every benchmark says about itself: machine, versions, commit; and its tables and JSON files."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vllm_sgl import __version__

PACKAGES = ("vllm", "torch", "triton", "transformers")
ROOT = Path(__file__).parents[1]


def environment() -> dict[str, Any]:
    """Where and with what a benchmark ran: plain values, for JSON."""
    return {"machine": machine(), "gpu": gpu(), "versions": versions(), "commit": commit(), "utc": utc()}


def machine() -> str:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_cpu_name()}, {len(os.sched_getaffinity(0))} cores, {gib:.0f} GiB"


def gpu() -> str | None:
    """Name and memory of the current CUDA device; None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def versions() -> dict[str, str]:
    """Of Python, of what is imported of this project, and of those PACKAGES that are installed."""
    found = {"python": platform.python_version(), "vllm-sgl": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checked-out commit, with "+changes" where tracked files differ from it."""
    name = _git("rev-parse", "--short=12", "HEAD")
    if not name:
        return "unknown"
    return f"{name} +changes" if _git("status", "--porcelain", "--untracked-files=no") else name


def utc() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())


def print_environment(values: Mapping[str, Any]) -> None:
    print("\n".join(f"{name:<9} {text}" for name, text in _environment_lines(values)))


def print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows of equal keys as an aligned Markdown table; None is a dash."""
    if text := table(rows):
        print(text)


def print_sections(sections: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Tables under their titles."""
    for title, rows in sections.items():
        print(f"\n{title}")
        print_table(rows)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of equal keys as an aligned Markdown table, empty for no rows; None is a dash."""
    rows = list(rows)
    if not rows:
        return ""
    cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(f"| {line} |" for line in lines)


def write(
    path: Path | None,
    benchmark: str,
    values: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    sections: Mapping[str, Iterable[Mapping[str, Any]]] | None = None,
) -> None:
    """The JSON of a benchmark where a path is given and, where sections are given, its tables as a page
    of the same name.

    Args:
        benchmark: its name.
        values: what :func:`environment` gave when it began, and how it was run.
    """
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {**values, "benchmark": benchmark}
    write_json(path, values, rows)
    progress(f"written: {path}")
    if sections is not None:
        write_markdown(path.with_suffix(".md"), values, sections)
        progress(f"written: {path.with_suffix('.md')}")


def write_json(
    path: Path, values: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """values: what :func:`environment` gave when the benchmark began. rows: None where values have them."""
    path.write_text(json.dumps({**values, **({} if rows is None else {"rows": rows})}, indent=2) + "\n")


def write_markdown(
    path: Path, values: Mapping[str, Any], sections: Mapping[str, Iterable[Mapping[str, Any]]]
) -> None:
    """The same tables as a page: where and with what they were measured, then every section."""
    about = "\n".join(f"* {name}: {text}" for name, text in _environment_lines(values))
    tables = "\n".join(f"\n## {title}\n\n{table(rows)}" for title, rows in sections.items())
    path.write_text(f"# {values.get('benchmark', path.stem)}\n\n{about}\n{tables}\n")


def progress(text: str) -> None:
    """One line on stderr, so that stdout holds results only."""
    print(text, file=sys.stderr, flush=True)


def _environment_lines(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {number}" for name, number in values["versions"].items())
    lines = [
        ("machine", values["machine"]),
        ("GPU", values["gpu"] or "none"),
        ("versions", versions),
        ("commit", f"{values['commit']}   {values['utc']} UTC"),
    ]
    return lines + ([("allocator", values["allocator"])] if "allocator" in values else [])


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, timeout=30)
    except OSError:  # no git
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
