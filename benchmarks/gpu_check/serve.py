"""A true-size pair with dummy weights behind ``vllm serve``: latency, throughput, ratio to plain vLLM.

Dummy weights cost what real ones cost and answer gibberish, so first it is checked that both sides do the
same work: as many prompt and answer tokens, and on the guided side exactly the promised kept tokens.
"""

import math
from itertools import count

from .load import Reply, ask, bodies, median
from .session import Section, SectionError, Session
from .sides import SMOKE, TRUE, Plan, Side, side

#: name -> the request's `vllm_xargs`. R = 1 without an exit is a bypass: the guide never runs.
SETTINGS = {
    "sgl off": {"sgl_enabled": 0},
    "R = 1": {"sgl_retention": 1.0},
    "R = 0.35": {"sgl_retention": 0.35},
    "R = 0.09": {"sgl_retention": 0.09},
}
#: Latency is measured for all, throughput only for these: "sgl off" and "R = 1" are the same path.
LOADED = ("R = 1", "R = 0.35", "R = 0.09")
_STOP_BEFORE = 60  # seconds that the end of the guided side and the report may take


def run(session: Session) -> Section:
    section, plan = Section(), SMOKE if session.smoke else TRUE
    with side(session, plan, guided=False) as plain:
        started = {"plain": plain.server.seconds}
        section.rows += _measure(session, section, plan, plain, {"plain": None}, ("plain",))
    section.sides.append(plain)
    try:
        with side(session, plan, guided=True) as guided:
            started["guided"] = guided.server.seconds
            section.rows += _measure(session, section, plan, guided, SETTINGS, LOADED)
        section.sides.append(guided)
    except SectionError as error:  # the plain side's figures are kept
        section.failures.append(str(error))
    base = section.rows[0]
    for row in section.rows:
        row["latency_ratio"] = _ratio(base["latency_s"], row["latency_s"])
        row["throughput_ratio"] = _ratio(row["requests_per_s"], base["requests_per_s"])
    section.notes.append(f"seconds to start: {started}; ratios above 1 are faster than plain vLLM")
    section.notes.append(f"{plan.large.name} guided by {plan.small.name}, {plan.large.visual_tokens} tokens")
    return section


def _measure(
    session: Session, section: Section, plan: Plan, on: Side, settings: dict, loaded: tuple[str, ...]
) -> list[dict]:
    """Rows of one server: check and warm up, then latency and throughput, settings taking turns."""
    seeds = count(1)

    def fresh(name: str, how_many: int) -> list[bytes]:
        some = [next(seeds) for _ in range(how_many)]
        return bodies(some, plan.image, plan.max_tokens, settings[name])

    rows = {name: {"side": on.name, "setting": name} for name in settings}
    for name, row in rows.items():
        replies, _ = ask(on.server, fresh(name, 2), 1)
        row |= _check(section, plan, name, settings[name], replies)
    ask(on.server, [body for name in settings for body in fresh(name, plan.clients // 2)], plan.clients)

    latencies: dict[str, list[Reply]] = {name: [] for name in settings}
    for _ in range(plan.latency_repeats):
        for name in settings:
            latencies[name] += ask(on.server, fresh(name, 1), 1)[0]
    rates: dict[str, list[float]] = {name: [] for name in settings}
    longest = 0.0
    for _ in range(plan.rounds):
        for name in loaded:
            if rates[name] and session.left() < _STOP_BEFORE + 2 * longest:
                section.notes.append(f"{on.name}, {name}: {len(rates[name])} round(s), time was short")
                continue
            _, seconds = ask(on.server, fresh(name, plan.requests), plan.clients)
            rates[name].append(plan.requests / seconds)
            longest = max(longest, seconds)
    for name, row in rows.items():
        row["latency_s"] = median([reply.seconds for reply in latencies[name]])
        row["requests_per_s"] = median(rates[name]) if rates[name] else None
        guide = [r.sgl["guide_seconds"] for r in latencies[name] if r.sgl and r.sgl["guide_seconds"]]
        row["guide_s"] = median(guide) if guide else None
    return list(rows.values())


def _check(section: Section, plan: Plan, name: str, options: dict | None, replies: list[Reply]) -> dict:
    """What the warm-up replies say, held against what was asked."""
    reply = replies[-1]
    usage, sgl = reply.usage, reply.sgl or {}
    asked = (options or {}).get("sgl_retention")
    total = plan.large.visual_tokens
    section.expect(
        usage["completion_tokens"] == plan.max_tokens,
        f"{name}: {usage['completion_tokens']} answer tokens, expected {plan.max_tokens}",
    )
    section.expect(
        usage["prompt_tokens"] > total, f"{name}: {usage['prompt_tokens']} prompt tokens, expected > {total}"
    )
    if options is None:
        section.expect(reply.sgl is None, f"{name}: plain vLLM answered with an sgl report: {reply.sgl}")
    else:
        prunes = asked is not None and asked < 1
        expected = ("prune", max(1, math.floor(asked * total))) if prunes else ("bypass", 0)
        found = (sgl.get("decision"), sgl.get("kept_tokens") if prunes else 0)
        section.expect(found == expected, f"{name}: expected {expected}, the report says {sgl}")
        section.expect(sgl.get("visual_tokens") == total, f"{name}: expected {total} visual tokens, {sgl}")
    return {"prompt_tokens": usage["prompt_tokens"], "kept": sgl.get("kept_tokens")}


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None
