"""Prometheus metrics on vLLM's own ``/metrics``; their names start with ``sgl:``.

vLLM unregisters every ``vllm:`` collector when an engine starts, so ours are not named like that.
"""

import weakref
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from vllm_sgl.core import Report

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SCORES = tuple(i / 20 for i in range(1, 21))


class Guided(Protocol):
    """A client of a guided engine."""

    @property
    def guide_alive(self) -> bool: ...

    @property
    def guide_load(self) -> tuple[int, int]: ...


class Metrics:
    """Counts reports, one per request."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._requests = Counter(
            "sgl:requests", "Requests by decision and reason.", ["decision", "reason", "profile"],
            registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "sgl:visual_tokens", "Visual tokens seen; kept for the large model; of these, reused and late.",
            ["kind", "profile"],
            registry=registry,
        )  # fmt: skip
        self._tiles = Counter(
            "sgl:tiles", "Tiles of images seen, and needed by the large model.", ["kind", "profile"],
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "sgl:guide_seconds", "Time from request to decision.", ["profile"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._score = Histogram(
            "sgl:score", "Early-exit score S.", ["profile"], buckets=_SCORES, registry=registry
        )
        self._alive = Gauge(
            "sgl:guide_up", "1 while the guide answers.", multiprocess_mode="mostrecent", registry=registry
        )
        self._load = tuple(
            Gauge(name, what, multiprocess_mode="sum", registry=registry)
            for name, what in (
                ("sgl:guide_inflight", "Requests that the guide works on."),
                ("sgl:guide_waiting", "Requests that wait for the guide."),
            )
        )
        self._watched: Callable[[], Guided | None] = lambda: None

    def observe(self, report: Report) -> None:
        profile = report.profile or ""
        self._requests.labels(report.decision, report.reason or "", profile).inc()
        self._tokens.labels("seen", profile).inc(report.visual_tokens)
        self._tokens.labels("kept", profile).inc(report.kept_tokens)
        self._tokens.labels("reused", profile).inc(report.reused_tokens)
        self._tokens.labels("late", profile).inc(report.late_tokens)
        self._tiles.labels("seen", profile).inc(report.tiles)
        self._tiles.labels("encoded", profile).inc(report.encoded_tiles)
        if report.guide_seconds is not None:
            self._seconds.labels(profile).observe(report.guide_seconds)
        if report.score is not None:
            self._score.labels(profile).observe(report.score)

    def watch(self, client: Guided, profiles: Iterable[str] = ()) -> None:
        """Ask the client on every scrape, as long as it lives; the reference is weak.

        profiles: of its requests; what is measured of them is there, as zero, from the first scrape on.
        """
        for profile in ("", *profiles):
            self._seconds.labels(profile)
            self._score.labels(profile)
        self._watched = weakref.ref(client)
        self._alive.set_function(self._is_alive)
        for which, gauge in enumerate(self._load):
            gauge.set_function(partial(self._load_now, which))

    def refresh(self) -> None:
        """Before a scrape: under PROMETHEUS_MULTIPROC_DIR, which vLLM's Helm chart sets, prometheus_client
        reads what was written to files, and asks no function."""
        self._alive.set(self._is_alive())
        for which, gauge in enumerate(self._load):
            gauge.set(self._load_now(which))

    def _is_alive(self) -> float:
        client = self._watched()
        return float(client is not None and client.guide_alive)

    def _load_now(self, which: int) -> float:
        client = self._watched()
        return 0.0 if client is None else float(client.guide_load[which])


@cache
def metrics() -> Metrics:
    """The process's one instance: a registry takes each name once."""
    return Metrics()
