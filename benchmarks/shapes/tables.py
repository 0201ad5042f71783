"""Every shape at a glance, its figures, and how its requests were answered."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .figures import WHOLE
from .settings import PLAIN
from .traffic import SHAPES

_WITHIN = "within goal"


def glance(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The few rows that say the most: plain vLLM's seconds, and its seconds over each setting's."""
    settings = [name for name in dict.fromkeys(row["setting"] for row in rows) if name != PLAIN.name]
    cells = {(row["shape"], row["group"], row["part"], row["setting"]): row for row in rows}
    made = []
    for shape in dict.fromkeys(row["shape"] for row in rows):
        for one in SHAPES[shape].glance:
            keys = [(shape, one.group, part) for part in one.parts]
            if all((*key, PLAIN.name) in cells for key in keys):
                plain = " / ".join(_plain(cells[*key, PLAIN.name], one.figure) for key in keys)
                found = {
                    name: " / ".join(_against(cells.get((*key, name)), one.figure) for key in keys)
                    for name in settings
                }
                made.append({"traffic": one.says, "plain": plain, **found})
    return made


def short(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row per shape, group, part and figure: plain vLLM's seconds, and its seconds over each setting's.
    Then right answers in percent."""
    settings = [name for name in dict.fromkeys(row["setting"] for row in rows) if name != PLAIN.name]
    cells = {(row["shape"], row["group"], row["part"], row["setting"]): row for row in rows}
    made = []
    for shape, group, part in _ordered(rows):
        plain = cells.get((shape, group, part, PLAIN.name))
        if plain is None:
            continue
        found = {name: cells.get((shape, group, part, name)) for name in settings}
        label = f"{shape}: {group}, {part}"
        for figure in SHAPES[shape].figures:
            if figure in plain or plain["seconds"].get(figure) is not None:
                against = {name: _against(row, figure) for name, row in found.items()}
                made.append({"traffic": label, "figure": figure, "plain": _plain(plain, figure), **against})
        if plain.get("right") is not None:
            right = {name: _percent(row and row["right"]) for name, row in found.items()}
            made.append({"traffic": label, "figure": "right", "plain": _percent(plain["right"]), **right})
    return made


def long(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Everything that is not in the short table: requests, cached tokens, the guide's seconds, decisions."""
    for row in rows:
        if row["part"] != WHOLE:
            decisions = (f"{count} {name}" for name, count in row["decisions"].items())
            yield {
                "traffic": f"{row['shape']}: {row['group']}, {row['part']}",
                "setting": row["setting"],
                "requests": row["requests"],
                "first token, s": row["seconds"]["first token"],
                "answer, s": row["seconds"]["answer"],
                "prompt tokens": round(row["prompt_tokens"]),
                "cached": _percent(row["cached_share"]),
                "answer tokens": round(row["answer_tokens"], 1),
                "guide, s": row["guide_seconds"],
                "decisions": ", ".join(decisions) or None,
            }


def _ordered(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Parts of a group together, the whole case behind them; shapes as they were measured."""
    keys = list(dict.fromkeys((row["shape"], row["group"], row["part"]) for row in rows))
    groups = list(dict.fromkeys(key[:2] for key in keys))
    shapes = list(dict.fromkeys(key[0] for key in keys))
    return sorted(keys, key=lambda key: (shapes.index(key[0]), groups.index(key[:2]), key[2] == WHOLE))


def _plain(row: Mapping[str, Any], figure: str) -> str:
    if figure == _WITHIN:
        return _percent(row[_WITHIN])
    seconds = row["seconds"][figure]
    return "-" if seconds is None else f"{seconds:.3g} s"


def _against(row: Mapping[str, Any] | None, figure: str) -> str:
    return _percent(row and row[_WITHIN]) if figure == _WITHIN else _ratio(row, figure)


def _ratio(row: Mapping[str, Any] | None, figure: str) -> str:
    ratio = row and row["ratios"].get(figure)
    return f"{ratio['value']:.2f}" if ratio else "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"
