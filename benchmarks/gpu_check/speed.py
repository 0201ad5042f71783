"""A true-size pair with dummy weights behind ``vllm serve``: latency, throughput, ratio to plain vLLM.

Dummy weights cost what real ones cost and answer gibberish, so first it is checked that both sides do the
same work: as many prompt and answer tokens, and on the guided side exactly the promised kept tokens.
"""

import math
from collections.abc import Sequence
from itertools import count

from benchmarks.support.load import Reply, ask, bodies, median
from benchmarks.support.pair import Measured, measured
from benchmarks.support.workspace import BenchmarkError

from .section import Check, Section
from .workload import GPU, SMOKE, Workload

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


def run(check: Check) -> Section:
    section, load = Section(), SMOKE if check.smoke else GPU
    load.pair.write(check.work)
    with measured(check, load.pair, "plain") as plain:
        started = {"plain": plain.server.seconds}
        # The guided side starts two engines.
        keep = _STOP_BEFORE + 2.5 * plain.server.seconds
        section.rows += _measure(check, section, load, plain, {"plain": None}, ("plain",), keep)
    section.sides.append(plain)
    try:
        with measured(check, load.pair, "guided") as guided:
            started["guided"] = guided.server.seconds
            section.rows += _measure(check, section, load, guided, SETTINGS, LOADED, _STOP_BEFORE)
        section.sides.append(guided)
    except BenchmarkError as error:  # the plain side's figures are kept
        section.failures.append(str(error))
    base = section.rows[0]
    for row in section.rows:
        row["latency_ratio"] = _ratio(base["latency_s"], row["latency_s"])
        row["throughput_ratio"] = _ratio(row["requests_per_s"], base["requests_per_s"])
    section.notes.append(f"seconds to start: {started}; ratios above 1 are faster than plain vLLM")
    pair = load.pair
    section.notes.append(f"{pair.large.name} guided by {pair.small.name}, {pair.visual_tokens} tokens")
    return section


def _measure(
    check: Check,
    section: Section,
    load: Workload,
    on: Measured,
    settings: dict,
    loaded: Sequence[str],
    keep: float,
) -> list[dict]:
    """Rows of one server: check and warm up, then latency and throughput, settings taking turns.

    A setting whose replies are not what was asked for gets no number. keep: seconds to leave for what
    follows; a second round of throughput is run only where there is time.
    """
    seeds = count(1)
    rows = {name: {"side": on.side, "setting": name} for name in settings}
    red: set[str] = set()

    def send(name: str, how_many: int, clients: int) -> tuple[list[Reply], float]:
        some = [next(seeds) for _ in range(how_many)]
        replies, seconds = ask(
            on.server, bodies(some, load.pair.image, load.max_tokens, settings[name]), clients
        )
        bad = dict.fromkeys(filter(None, (wrong(load, settings[name], reply) for reply in replies)))
        if bad:
            red.add(name)
            section.failures += [f"{on.side}, {name}: {text}" for text in list(bad)[:2]]
        return replies, seconds

    latencies: dict[str, list[Reply]] = {name: [] for name in settings}
    rates: dict[str, list[float]] = {name: [] for name in settings}
    for name, row in rows.items():
        reply = send(name, 2, 1)[0][-1]
        row |= {"prompt_tokens": reply.usage["prompt_tokens"], "kept": (reply.sgl or {}).get("kept_tokens")}
        send(name, load.clients // 2, load.clients)
    for _ in range(load.latency_repeats):
        for name in settings:
            latencies[name] += send(name, 1, 1)[0]
    longest = 0.0
    for _ in range(load.rounds):
        for name in loaded:
            if name in red or (rates[name] and check.left() < keep + 2 * longest):
                continue
            _, seconds = send(name, load.requests, load.clients)
            rates[name].append(load.requests / seconds)
            longest = max(longest, seconds)
    for name, row in rows.items():
        times, guide = latencies[name], [(r.sgl or {}).get("guide_seconds") for r in latencies[name]]
        row["latency_s"] = None if name in red else median([reply.seconds for reply in times])
        row["requests_per_s"] = median(rates[name]) if rates[name] and name not in red else None
        row["rounds"] = len(rates[name])
        row["guide_s"] = median(guide) if all(guide) else None
    return list(rows.values())


def wrong(load: Workload, options: dict | None, reply: Reply) -> str | None:
    """How a reply differs from what was asked for; options: the request's own, None for plain vLLM."""
    total, usage, sgl = load.pair.visual_tokens, reply.usage, reply.sgl
    if usage["completion_tokens"] != load.max_tokens:
        return f"{usage['completion_tokens']} answer tokens, expected {load.max_tokens}"
    if usage["prompt_tokens"] <= total:
        return f"{usage['prompt_tokens']} prompt tokens, expected more than {total}"
    if options is None:
        return f"plain vLLM answered with an sgl report: {sgl}" if sgl is not None else None
    retention = options.get("sgl_retention", 1.0)
    decision = "prune" if retention < 1 else "bypass"
    kept = max(1, math.floor(retention * total))
    expected = {"decision": decision, "visual_tokens": total, "kept_tokens": kept}
    found = {name: (sgl or {}).get(name) for name in expected}
    return f"expected {expected}, the report says {sgl}" if found != expected else None


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None
