"""What a run leaves behind: tables, result.json, pictures; and a written run, read and figured again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report

from . import curve, figures, tables
from .bench import Run
from .cost import PartTimes
from .figures import Times
from .presets import PRESETS
from .settings import Setting, Step

_FILE = "result.json"


def write(out: Path, about: Mapping[str, Any], runs: Sequence[Run], times: Times) -> None:
    """result.json. about: environment and how the run went; what is figured from the runs is added."""
    out.mkdir(parents=True, exist_ok=True)
    loads = dict.fromkeys(run.step.clients for run in runs)
    values = {
        **about,
        "part_times": {clients: asdict(times(clients)) for clients in loads},
        "noise": {metric: figures.noise(runs, metric) for metric in figures.METRICS},
        "beside": figures.rows_beside(runs),
        "curve": [point.as_dict() for point in curve.points(runs)],
        "runs": [asdict(run) for run in runs],
    }
    report.write_json(out / _FILE, values, figures.rows(runs, times))


def show(out: Path | None, about: Mapping[str, Any], runs: Sequence[Run], times: Times) -> None:
    """Print the tables; write everything, where it is wanted."""
    tables.show(runs, times)
    known = max(run.cached_share for run in runs)
    print(f"The prefix cache knew {known:.1%} of prompt tokens at most. {about['minutes']} minutes")
    if out is None:
        return
    from .pictures import draw

    write(out, about, runs, times)
    for path in draw(runs, times, out, f"{about['pair']}, {about['machine']}"):
        report.progress(f"written: {path}")


def again(folder: Path) -> None:
    """Figure a written run anew, by today's arithmetic; nothing is measured.

    Raises:
        OSError, ValueError, KeyError: there is no such run.
    """
    stored = json.loads((folder / _FILE).read_text())
    runs = [_run(one) for one in stored.pop("runs")]
    parts = {int(clients): _parts(one) for clients, one in stored.pop("part_times").items()}
    stored.setdefault("pair", PRESETS[stored["preset"]].pair.title)
    report.print_environment(stored)
    show(folder, stored, runs, figures.under_load(parts.__getitem__, runs))


def _run(stored: dict[str, Any]) -> Run:
    step = stored.pop("step")
    setting = Setting(**step.pop("setting"))
    right = stored.pop("right")
    return Run(Step(setting=setting, **step), right=None if right is None else tuple(right), **stored)


def _parts(stored: dict[str, Any]) -> PartTimes:
    language = {float(share): seconds for share, seconds in stored.pop("large_language").items()}
    return PartTimes(large_language=language, **stored)
