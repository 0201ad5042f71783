"""A small engine on GPUs of its own: two plans, each as if the engine were alone."""

from types import SimpleNamespace

import pytest

from tests.unit.test_small_engine import configs
from vllm_sgl.engine import memory_apart
from vllm_sgl.engine.memory import GIB, MIB, Engine, plan
from vllm_sgl.engine.memory_apart import alone, are_apart, share_apart
from vllm_sgl.host.start import device as host
from vllm_sgl.host.start.device import Device

GPU = Device("gpu", "each cuda device", 80 * GIB, 80 * GIB)
#: InternVL2-26B and -2B at contexts of 8,192 tokens.
LARGE = Engine(48 * GIB, 8192 * 192 << 10, 8192, 256, GIB)
SMALL = Engine(4 * GIB, 8192 * 64 << 10, 8192, 256, GIB)


def test_the_large_engine_gets_the_room_that_the_small_one_left():
    shared = plan(GPU, 0.9, SMALL, LARGE)
    own = alone("large", GPU, 0.9, LARGE)
    freed = own.kv - shared.large_kv
    assert freed == pytest.approx(shared.small_total, abs=2)
    assert own.share == pytest.approx(0.9 - 1 / 80)  # but for the features, which vLLM does not count


def test_what_does_not_fit_alone_is_refused_with_the_numbers():
    with pytest.raises(
        ValueError, match=r"the small engine on devices of its own: 7\.20 GiB usable .*Lower its"
    ):
        alone("small", Device("gpu", "", 8 * GIB, 8 * GIB), 0.9, SMALL)


class Cuda:
    def is_cpu(self):
        return False

    def is_cuda(self):
        return True

    device_type = "cuda"

    def device_id_to_physical_device_id(self, device_id):
        return device_id


@pytest.fixture
def on_cuda(monkeypatch):
    monkeypatch.setattr(host, "current_platform", Cuda())
    sizes = {0: 80 * GIB, 4: 24 * GIB}
    monkeypatch.setattr(host, "_nvml_memory", lambda physical: (sizes[physical], sizes[physical]))
    monkeypatch.setattr(memory_apart.needs_of.__globals__["host"], "weight_bytes", lambda config: GIB)


def test_engines_with_their_own_devices_are_planned_apart(qwen2_pair, on_cuda):
    large, small = configs(qwen2_pair, {"device_ids": [4], "gpu_memory_utilization": 0.5})
    assert (host.devices_of(large), host.devices_of(small)) == (frozenset({0}), frozenset({4}))
    assert small.parallel_config.tensor_parallel_size == 1  # one for each of its devices
    assert are_apart(large, small)
    settings = SimpleNamespace(small_args={"device_ids": [4]}, small_memory="auto")
    found = share_apart(large, small, settings)
    assert (found.small_total, found.large_total) == (12 * GIB, int(80 * GIB * 0.92))
    assert small.cache_config.gpu_memory_utilization == found.small_share < 0.5
    assert large.cache_config.gpu_memory_utilization == found.large_share < 0.92
    assert found.large_kv > 70 * GIB - 2048 * MIB - 5 * GIB


def test_engines_that_share_a_device_are_planned_together(qwen2_pair, on_cuda):
    large, small = configs(qwen2_pair, {"device_ids": [0]})
    assert not are_apart(large, small)
    large, small = configs(qwen2_pair)
    assert not are_apart(large, small)
    large, small = configs(qwen2_pair, {"device_ids": [0, 4], "tensor_parallel_size": 1})
    with pytest.raises(
        ValueError, match=r"expected GPUs of the large engine \(\[0\]\) or others, received some"
    ):
        are_apart(large, small)
