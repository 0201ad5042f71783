"""From rounds to a table."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from .asking import Setting
from .parts import PLACES, REST, TOTAL, ZEROMQ


def rows(
    settings: Iterable[Setting], rounds: Sequence[Mapping[str, Mapping[str, float]]]
) -> list[dict[str, Any]]:
    """A row per part, a column per setting: medians over rounds; the whole first."""
    return [
        {
            "part": part,
            **{one.name: round(median(spent[one.name][part] for spent in rounds), 2) for one in settings},
        }
        for part in (TOTAL, *PLACES, ZEROMQ, REST)
    ]
