"""Metrics: the gauge of the guide does not keep the engine client alive that it asks."""

import gc
import weakref

from prometheus_client import CollectorRegistry

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
