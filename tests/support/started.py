"""How many servers, commands and engines a test run starts: what takes its time."""

from collections import Counter

#: By kind, in this process. ``tools/gate.py`` has the most that the gate may start of each.
COUNTS: Counter[str] = Counter()


def count(kind: str) -> None:
    COUNTS[kind] += 1
