"""Peak device memory of both sides, against the published figures."""

from benchmarks import memory
from benchmarks.serving.load import ask, bodies
from benchmarks.serving.pair import Measured, measured

from .plan import GPU, SMOKE
from .session import Section, Session


def run(session: Session) -> Section:
    """Uses the servers that `serve` ran, where it did; else starts both for one request each."""
    section = Section()
    served = session.found.get("serve")
    sides = served.sides if served and len(served.sides) == 2 else _one_request_each(session)
    for one in sides:
        section.rows.append(memory.row(one, published=not session.smoke))
        section.expect(one.peak > 0, f"{one.side}: the driver gave no figure for memory in use")
    if not session.smoke and len(sides) == 2:
        section.notes.append(memory.compared(*section.rows))
    return section


def _one_request_each(session: Session) -> list[Measured]:
    plan = SMOKE if session.smoke else GPU
    plan.pair.write(session.work)
    sides = []
    for side in ("plain", "guided"):
        options = {"sgl_retention": 0.09} if side == "guided" else None
        with measured(session, plan.pair, side) as one:
            ask(one.server, bodies([1], plan.pair.image, plan.max_tokens, options), 1)
        sides.append(one)
    return sides
