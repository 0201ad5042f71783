"""Peak device memory of both sides, against the published figures."""

from benchmarks import memory
from benchmarks.support.load import ask, bodies
from benchmarks.support.pair import Measured, measured

from .section import Check, Section
from .workload import GPU, SMOKE


def run(check: Check) -> Section:
    """Uses the servers that `serve` ran, where it did; else starts both for one request each."""
    section = Section()
    served = check.found.get("serve")
    sides = served.sides if served and len(served.sides) == 2 else _one_request_each(check)
    for one in sides:
        section.rows.append(memory.row(one, published=not check.smoke))
        section.expect(one.peak > 0, f"{one.side}: the driver gave no figure for memory in use")
    if not check.smoke and len(sides) == 2:
        section.notes.append(memory.compared(*section.rows))
    return section


def _one_request_each(check: Check) -> list[Measured]:
    load = SMOKE if check.smoke else GPU
    load.pair.write(check.work)
    sides = []
    for side in ("plain", "guided"):
        options = {"sgl_retention": 0.09} if side == "guided" else None
        with measured(check, load.pair, side) as one:
            ask(one.server, bodies([1], load.pair.image, load.max_tokens, options), 1)
        sides.append(one)
    return sides
