"""Metrics: they carry the profile, and the gauge of the guide does not keep the engine client alive that it
asks."""

import gc
import os
import subprocess
import sys
import weakref

from prometheus_client import CollectorRegistry

from vllm_sgl.core import Report
from vllm_sgl.telemetry.metrics import Metrics


class Client:
    guide_alive = True
    guide_load = (3, 2)


def test_the_gauge_asks_and_lets_go():
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    client = Client()
    metrics.watch(client)
    assert registry.get_sample_value("sgl:guide_up") == 1
    assert registry.get_sample_value("sgl:guide_inflight") == 3
    assert registry.get_sample_value("sgl:guide_waiting") == 2
    client.guide_alive = False
    assert registry.get_sample_value("sgl:guide_up") == 0
    client.guide_alive = True
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert registry.get_sample_value("sgl:guide_waiting") == 0
    assert registry.get_sample_value("sgl:guide_up") == 0


SCRAPED_FROM_FILES = """
import asyncio
from prometheus_client import CollectorRegistry, multiprocess
from vllm_sgl.telemetry.metrics import metrics
from vllm_sgl.serve.middleware import SGLMiddleware

class Client:
    guide_alive = True
    guide_load = (3, 2)

def up():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry.get_sample_value("sgl:guide_up")

async def app(scope, receive, send):
    print(up())

client = Client()
metrics().watch(client)
for client.guide_alive in (True, False, True):
    asyncio.run(SGLMiddleware(app)({"type": "http", "method": "GET", "path": "/metrics"}, None, None))
"""


def test_the_gauge_of_a_server_whose_metrics_are_files(tmp_path):
    """As with vLLM's Helm chart. prometheus_client looks at its environment as it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRAPED_FROM_FILES], capture_output=True, text=True, check=True,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.split() == ["1.0", "0.0", "1.0"]


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
