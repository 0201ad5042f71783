"""`python -m benchmarks` and the results' index name everything that there is."""

import importlib.util
from pathlib import Path

from benchmarks import __main__ as command
from benchmarks.index import INDEX

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = BENCHMARKS / "results"


def runnable() -> set[str]:
    """Modules and packages that `python -m` runs, but for those that benchmarks run themselves."""
    packages = {path.parent.name for path in BENCHMARKS.glob("*/__main__.py")}
    modules = {path.stem for path in BENCHMARKS.glob("*.py") if "__name__ ==" in path.read_text()}
    return packages | modules - {"__main__"}


def test_every_benchmark_is_listed(capsys):
    assert {one.name for one in INDEX} == runnable()
    assert all(importlib.util.find_spec(f"benchmarks.{one.name}") for one in INDEX)
    command.main([])
    printed = capsys.readouterr().out
    assert all(f"python -m benchmarks.{one.name}" in printed for one in INDEX)


def test_every_result_is_indexed():
    text = (RESULTS / "README.md").read_text()
    found = {path.name + "/" * path.is_dir() for path in RESULTS.iterdir()} - {"README.md"}
    missing = {name for name in found if f"`{name}`" not in text}
    assert not missing
