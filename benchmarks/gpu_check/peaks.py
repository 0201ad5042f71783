"""Peak device memory of both sides, against the published figures."""

from .load import ask, bodies
from .session import Section, Session
from .sides import GIB, SMOKE, TRUE, Side, side

#: Peak GiB of InternVL2-26B alone, and with a co-resident 2B at 9 % kept (arXiv 2412.03324). vLLM reserves
#: its KV cache ahead, as much as it is given; the figure to compare is the peak without these pools.
PUBLISHED = {"plain": 51.60, "guided": 54.24}


def run(session: Session) -> Section:
    """Uses the servers that `serve` ran, where it did; else starts both for one request each."""
    section = Section()
    served = session.found.get("serve")
    sides = served.sides if served and len(served.sides) == 2 else _one_request_each(session)
    for one in sides:
        used = one.peak - one.baseline
        section.rows.append(
            {
                "side": one.name,
                "peak_gib": used / GIB,
                "kv_pools_gib": one.kv / GIB,
                "without_kv_gib": (used - one.kv) / GIB,
                "published_gib": None if session.smoke else PUBLISHED[one.name],
            }
        )
        section.expect(one.peak > 0, f"{one.name}: the driver gave no figure for memory in use")
    if not session.smoke and len(sides) == 2:
        extra = section.rows[1]["without_kv_gib"] - section.rows[0]["without_kv_gib"]
        published = PUBLISHED["guided"] - PUBLISHED["plain"]
        section.notes.append(
            f"the small engine adds {extra:.2f} GiB without its KV pool (published: {published:.2f})"
        )
    return section


def _one_request_each(session: Session) -> list[Side]:
    plan = SMOKE if session.smoke else TRUE
    sides = []
    for guided in (False, True):
        options = {"sgl_retention": 0.09} if guided else None
        with side(session, plan, guided=guided) as one:
            ask(one.server, bodies([1], plan.image, plan.max_tokens, options), 1)
        sides.append(one)
    return sides
