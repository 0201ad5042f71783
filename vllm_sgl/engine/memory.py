"""Shares one device's memory between two engines: :func:`plan` computes, :func:`share_memory` reads and
applies."""

import logging
import os
from dataclasses import dataclass

from vllm.config import VllmConfig

from vllm_sgl.config import SGLConfig
from vllm_sgl.host.start import device as host
from vllm_sgl.host.start.device import Device
from vllm_sgl.host.start.encoder import feature_cache_bytes
from vllm_sgl.host.start.kv_need import sequence_bytes

logger = logging.getLogger("vllm.vllm_sgl.memory")

_SMALL_KV = "kv_cache_memory_bytes"
#: vLLM's older way to fix a CPU engine's KV cache, in GiB. Both engines read it; it is the large one's.
_CPU_KV = "VLLM_CPU_KVCACHE_SPACE"

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

#: What an engine needs beside weights, vision features and KV cache: activations, workspaces, its runtime.
RESERVE = {"cpu": GIB, "gpu": 4 * GIB}
#: What a process on a GPU takes that vLLM does not count as its engine's: its context.
CONTEXT = GIB // 2
#: Sequences of full length that the small engine's KV cache holds by default, and its bound.
SMALL_SEQUENCES = 16
SMALL_KV_MOST = {"cpu": GIB, "gpu": 4 * GIB}
#: Bound of the large engine's KV cache by default. A GPU belongs to its engines, as vLLM has it; a CPU's
#: memory is everybody's, and a cache that is larger than what requests fill makes nothing faster.
LARGE_KV_MOST = {"cpu": 4 * GIB, "gpu": None}
#: Weights over what the checkpoint says: alignment, buffers, fragmentation.
SLACK = 1.05


@dataclass(frozen=True)
class Engine:
    """What one engine needs on the device, in bytes.

    weights: 0 where unknown. sequence: KV cache of one sequence of full length, that is of ``tokens`` tokens.
    sequences: the most at once. features: the bound of its vision feature cache. kv: the KV cache where the
    user fixed it, by the setting ``kv_from``.
    """

    weights: int
    sequence: int
    tokens: int
    sequences: int
    features: int
    kv: int | None = None
    kv_from: str = ""

    def fixed(self, kind: str) -> int:
        """Everything but the KV cache, on a device of this kind."""
        return int(self.weights * SLACK) + self.features + RESERVE[kind]

    def describe(self, kv: int) -> str:
        """A KV cache of ``kv`` bytes, in words."""
        tokens = kv * self.tokens // self.sequence
        return f"KV cache {size(kv)} ({tokens:,} tokens, {kv / self.sequence:.1f} sequences of full length)"


@dataclass(frozen=True)
class Plan:
    """Bytes of each engine's KV cache and of all that it takes; on a GPU also the shares of the device that
    vLLM is told. warning: set where sizes that the user fixed do not seem to fit; they stand all the same."""

    small_kv: int
    small_total: int
    large_kv: int
    large_total: int
    small_share: float
    large_share: float
    warning: str | None = None


def usable(device: Device, utilization: float) -> int:
    """Bytes of the device for both engines.

    utilization: the share of it that may be in use when both run (``--gpu-memory-utilization``, which means
        a CPU too). Where others use more than it leaves them, what is free decides.
    """
    most = int(device.total * utilization)
    if device.kind == "cpu":  # what others use counts: they need it, and what is free is not all for us
        return max(0, most - (device.total - device.free))
    return max(0, min(most, device.free - 2 * CONTEXT))


def plan(
    device: Device, utilization: float, small: Engine, large: Engine, asked: str | float | int = "auto"
) -> Plan:
    """Split the device's memory.

    A size that the user fixed stands. By default the small engine's KV cache holds ``SMALL_SEQUENCES``
    sequences of full length, and the large one's, on a CPU, as many as may run at once; both within their
    bounds, and down to one sequence where memory is short. On a GPU the large engine takes what is left.

    Args:
        asked: everything that the small engine gets: "auto", a share of the device's memory in (0, 1), or
            bytes. Not used where its KV cache is fixed.

    Raises:
        ValueError: where an engine cannot hold its weights and one full sequence.
    """
    kind, most = device.kind, usable(device, utilization)
    small_fixed, large_fixed = small.fixed(kind), large.fixed(kind)
    left = most - small_fixed - large_fixed
    small_kv = _small_kv(device, small, asked)
    large_kv = large.kv
    if large_kv is None:
        bound = LARGE_KV_MOST[kind]
        wanted = left if bound is None else min(large.sequences * large.sequence, bound)
        large_kv = max(large.sequence, min(wanted, left - small_kv))
    if small.kv is None and asked == "auto":
        small_kv = max(small.sequence, min(small_kv, left - large_kv))
    too_small = small_kv < small.sequence or large_kv < large.sequence
    warning = None
    if too_small or small_kv + large_kv > left:
        problem = _problem(device, utilization, small, large, small_kv, large_kv)
        # What engines need beside their KV caches is an estimate: where the user fixed both, vLLM decides.
        if too_small or small.kv is None or large.kv is None:
            raise ValueError(f"{problem}. {_remedies(small, large, asked)}")
        warning = f"{problem}. Both KV caches stay as you set them"
    small_total = small_fixed + small_kv
    return Plan(
        small_kv=small_kv,
        small_total=small_total,
        large_kv=large_kv,
        large_total=large_fixed + large_kv,
        # Without the feature caches: vLLM would give their room to the KV cache.
        small_share=(small_total - small.features) / device.total,
        large_share=(most - small_total - large.features) / device.total,
        warning=warning,
    )


def room_for_small(
    device: Device, utilization: float, small: Engine, large: Engine, asked: str | float | int = "auto"
) -> int:
    """The most bytes that the small engine's KV cache may get, whatever its context; arguments as of
    :func:`plan`."""
    kind = device.kind
    if small.kv is not None:
        return small.kv
    large_kv = large.sequence if large.kv is None else large.kv
    left = usable(device, utilization) - small.fixed(kind) - large.fixed(kind) - large_kv
    if isinstance(asked, str):
        return min(SMALL_KV_MOST[kind], left)
    return min(_small_kv(device, small, asked), left)


def size(count: int) -> str:
    """Bytes, in the unit that says most."""
    unit, name = next(
        ((unit, name) for unit, name in ((GIB, "GiB"), (MIB, "MiB")) if count >= unit), (KIB, "KiB")
    )
    return f"{count / unit:.2f} {name}" if count < 10 * unit else f"{count / unit:.1f} {name}"


def _small_kv(device: Device, small: Engine, asked: str | float | int) -> int:
    if small.kv is not None:
        return small.kv
    if isinstance(asked, str):
        return max(small.sequence, min(SMALL_SEQUENCES * small.sequence, SMALL_KV_MOST[device.kind]))
    share = int(asked * device.total) if isinstance(asked, float) else asked
    return share - small.fixed(device.kind)


def _problem(
    device: Device, utilization: float, small: Engine, large: Engine, small_kv: int, large_kv: int
) -> str:
    kv_caches = (("small engine", small, small_kv), ("large engine", large, large_kv))
    engines = "; ".join(
        f"{name}: weights {size(engine.weights) if engine.weights else 'unknown'}, working memory "
        f"{size(RESERVE[device.kind])}, feature cache {size(engine.features)}, "
        f"{engine.describe(max(0, kv))}, where one sequence of {engine.tokens:,} tokens needs "
        f"{size(engine.sequence)}"
        for name, engine, kv in kv_caches
    )
    return (
        f"not enough memory for both engines on {device.name}: {size(usable(device, utilization))} usable "
        f"({size(device.total)} in all, {size(device.free)} free, --gpu-memory-utilization {utilization:g}). "
        f"{engines}"
    )


def _remedies(small: Engine, large: Engine, asked: str | float | int) -> str:
    """Every setting that shapes the plan; first those that the user set."""
    settings = [engine.kv_from for engine in (small, large) if engine.kv is not None]
    if small.kv is None:
        now = size(asked) if isinstance(asked, int) else asked
        settings.append(f"--sgl-small-memory (now {now})")
    if large.kv is None:
        settings.append("--kv-cache-memory-bytes")
    settings += ["--gpu-memory-utilization", "--max-model-len", "--sgl-feature-cache"]
    return f"Change {', '.join(settings)} or --sgl-small-args '{{\"max_model_len\": ...}}', or free memory"


def share_memory(large: VllmConfig, small: VllmConfig, config: SGLConfig) -> Plan:
    """Split the device's memory, write the result where vLLM reads it, and say so.

    Raises:
        ValueError: where the pair does not fit the device.
    """
    device, utilization = host.device(), large.cache_config.gpu_memory_utilization
    small_needs, large_needs = needs_of(large, small, config, device)
    found = plan(device, utilization, small_needs, large_needs, config.small_memory)
    if found.warning:
        logger.warning("SGL memory: %s", found.warning)
    for name, needs in (("small", small_needs), ("large", large_needs)):
        if not needs.weights:
            logger.warning(
                "SGL memory: how large the %s model's weights are could not be read from its checkpoint, so "
                "nothing is set aside for them; set --sgl-small-memory if an engine then runs out of memory",
                name,
            )
    if device.kind == "cpu":
        small.cache_config.kv_cache_memory_bytes = found.small_kv
        large.cache_config.kv_cache_memory_bytes = found.large_kv
    else:
        small.cache_config.gpu_memory_utilization = found.small_share
        large.cache_config.gpu_memory_utilization = found.large_share
    logger.info(
        "SGL memory: %s of %s on %s for both engines; small engine: %s, %s in all; large engine: %s, %s in "
        "all. --sgl-small-memory and --kv-cache-memory-bytes set other sizes",
        size(usable(device, utilization)), size(device.total), device.name,
        small_needs.describe(found.small_kv), size(found.small_total),
        large_needs.describe(found.large_kv), size(found.large_total),
    )  # fmt: skip
    return found


def needs_of(
    large: VllmConfig, small: VllmConfig, config: SGLConfig, device: Device
) -> tuple[Engine, Engine]:
    """What the small and the large engine need."""
    small_needs = _needs(small, config.small_args.get(_SMALL_KV), f"--sgl-small-args {_SMALL_KV}")
    set_by = _CPU_KV if device.kind == "cpu" and os.environ.get(_CPU_KV) else "--kv-cache-memory-bytes"
    return small_needs, _needs(large, large.cache_config.kv_cache_memory_bytes, set_by)


def _needs(vllm_config: VllmConfig, kv: int | None, kv_from: str) -> Engine:
    return Engine(
        weights=host.weight_bytes(vllm_config),
        sequence=sequence_bytes(vllm_config),
        tokens=vllm_config.model_config.max_model_len,
        sequences=vllm_config.scheduler_config.max_num_seqs,
        features=feature_cache_bytes(vllm_config),
        kv=kv,
        kv_from=kv_from,
    )
