"""A small engine on GPUs of its own (``device_ids`` in ``--sgl-small-args``): each engine has its devices to
itself, as vLLM takes it for granted, but for the room of the vision features that vLLM does not count."""

import logging
from dataclasses import dataclass

from vllm.config import VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.memory import CONTEXT, Engine, Plan, needs_of, size
from vllm_sgl.host.start import device as host
from vllm_sgl.host.start.device import Device

logger = logging.getLogger("vllm.vllm_sgl.memory")


@dataclass(frozen=True)
class Alone:
    """An engine that has a device to itself. most: bytes that it may take there. kv: of these for its KV
    cache. share: of the device, as vLLM is told."""

    most: int
    kv: int
    share: float


def are_apart(large: VllmConfig, small: VllmConfig) -> bool:
    """Whether the engines have no GPU in common.

    Raises:
        ValueError: where they have some in common, and others not: the first has to leave room on each.
    """
    mine, theirs = host.devices_of(small), host.devices_of(large)
    if small.parallel_config.assigned_physical_gpu_ids is None or not mine or not theirs:
        return False
    if mine & theirs and not mine <= theirs:
        raise ValueError(
            f"--sgl-small-args device_ids: expected GPUs of the large engine ({sorted(theirs)}) or others, "
            f"received some of both ({sorted(mine)}): choose"
        )
    return not mine & theirs


def alone(name: str, device: Device, utilization: float, engine: Engine) -> Alone:
    """What an engine has on a device of its own.

    Args:
        name: of the engine, for messages.
        utilization: the share of the device that may be in use.

    Raises:
        ValueError: where it cannot hold its weights and one full sequence.
    """
    most = max(0, min(int(device.total * utilization), device.free - CONTEXT))
    left = most - engine.fixed(device.kind)
    kv = left if engine.kv is None else engine.kv
    if kv < engine.sequence or kv > left:
        raise ValueError(
            f"not enough memory for the {name} engine on devices of its own: {size(most)} usable there "
            f"({size(device.total)} in all, {size(device.free)} free); weights {size(engine.weights)}, "
            f"feature cache {size(engine.features)}, {engine.describe(max(0, kv))}, where one sequence of "
            f"{engine.tokens:,} tokens needs {size(engine.sequence)}. Lower its max_model_len, quantise it, "
            "or give it more devices"
        )
    return Alone(most, kv, (most - engine.features) / device.total)


def room_alone(large: VllmConfig, small: VllmConfig, config: SGLConfig) -> int:
    """Bytes that the small engine's KV cache may take on a device of its own."""
    device = host.device(min(host.devices_of(small)))
    needs, _ = needs_of(large, small, config, device)
    most = min(int(device.total * small.cache_config.gpu_memory_utilization), device.free - CONTEXT)
    return needs.kv or most - needs.fixed(device.kind)


def share_apart(large: VllmConfig, small: VllmConfig, config: SGLConfig) -> Plan:
    """Write each engine's share of its own devices where vLLM reads it, and say so.

    Raises:
        ValueError: as :func:`alone`.
    """
    found = []
    devices = [host.device(min(host.devices_of(engine))) for engine in (small, large)]
    needs = needs_of(large, small, config, devices[0])
    for name, engine, device, need in zip(("small", "large"), (small, large), devices, needs, strict=True):
        cache = engine.cache_config
        own = alone(name, device, cache.gpu_memory_utilization, need)
        cache.gpu_memory_utilization = own.share
        found.append(own)
        logger.info(
            "SGL memory: %s engine on GPU %s, of its own: %s of %s, %s", name,
            ", ".join(map(str, sorted(host.devices_of(engine)))), size(own.most), size(device.total),
            need.describe(own.kv),
        )  # fmt: skip
    mine, theirs = found
    return Plan(mine.kv, mine.most, theirs.kv, theirs.most, mine.share, theirs.share)
