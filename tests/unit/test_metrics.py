"""Metrics: they carry the profile, and the gauge of the guide does not keep the engine client alive that it
asks."""

import gc
import weakref

from prometheus_client import CollectorRegistry

from vllm_sgl.core import Report
from vllm_sgl.engine.metrics import Metrics


class Client:
    guide_alive = True


def test_the_gauge_asks_and_lets_go():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    client = Client()
    metrics.watch(client)
    assert registry.get_sample_value("sgl:guide_up") == 1
    client.guide_alive = False
    assert registry.get_sample_value("sgl:guide_up") == 0
    client.guide_alive = True
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert registry.get_sample_value("sgl:guide_up") == 0


def test_what_is_measured_carries_the_profile():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.watch(Client(), ["fast", "slow"])

    def value(name, **labels):
        return registry.get_sample_value(f"sgl:{name}", labels)

    for name in ("guide_seconds_count", "score_count"):
        assert [value(name, profile=profile) for profile in ("", "fast", "slow", "x")] == [0, 0, 0, None]
    metrics.observe(Report("prune", "low_score", 8, 3, 2, 1, score=0.5, guide_seconds=0.1))
    for _ in range(2):
        metrics.observe(Report("exit", None, 8, 0, 2, 0, score=0.9, guide_seconds=0.2, profile="fast"))
    assert value("requests_total", decision="prune", reason="low_score", profile="") == 1
    assert value("requests_total", decision="exit", reason="", profile="fast") == 2
    for profile, counts in {"": (8, 3, 2, 1, 1, 1), "fast": (16, 0, 4, 0, 2, 2)}.items():
        assert counts == (
            value("visual_tokens_total", kind="seen", profile=profile),
            value("visual_tokens_total", kind="kept", profile=profile),
            value("tiles_total", kind="seen", profile=profile),
            value("tiles_total", kind="encoded", profile=profile),
            value("guide_seconds_count", profile=profile),
            value("score_count", profile=profile),
        )
