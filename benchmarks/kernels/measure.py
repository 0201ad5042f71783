"""Times of an operation, and what the device can do at best."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from .work import Work

COLUMNS = (
    "kernel us", "naive us", "vs naive", "GB/s", "% of copy", "TFLOP/s", "% of matmul",
    "stand-in", "stand-in us", "% of stand-in",
)  # fmt: skip


@dataclass(frozen=True)
class Ceilings:
    """What the device does at best, measured: bytes/s of a copy, FLOP/s of a bfloat16 matmul."""

    bandwidth: float
    compute: float


def measure_ceilings(device: torch.device) -> Ceilings:
    source = torch.zeros(1 << 28, dtype=torch.float32, device=device)  # 1 GiB, far more than L2
    target = torch.empty_like(source)
    bandwidth = 2 * source.nbytes / seconds(lambda: target.copy_(source))
    n = 8192
    a, b = torch.randn(2, n, n, dtype=torch.bfloat16, device=device)
    return Ceilings(bandwidth, compute=2 * n**3 / seconds(lambda: a @ b))


def seconds(run: Callable[[], Any]) -> float:
    """Median time of a call, seconds."""
    if torch.cuda.is_available():
        from triton.testing import do_bench

        return do_bench(run, warmup=25, rep=100, return_mode="median") / 1e3
    times = []
    for _ in range(4):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def measure(name: str, shape: str, work: Work, ceilings: Ceilings | None) -> dict[str, Any]:
    """A table row. Without ceilings (on a CPU) the reference alone is timed."""
    row = {"operation": name, "shape": shape, **dict.fromkeys(COLUMNS)}
    row["naive us"] = seconds(work.naive) * 1e6
    if ceilings is None:
        return row
    took = seconds(work.kernel)
    row |= {"kernel us": took * 1e6, "vs naive": row["naive us"] / 1e6 / took}
    row |= {"GB/s": work.moved / took / 1e9, "% of copy": 100 * work.moved / took / ceilings.bandwidth}
    if work.flops:
        row |= {
            "TFLOP/s": work.flops / took / 1e12,
            "% of matmul": 100 * work.flops / took / ceilings.compute,
        }
    if work.stand_in:
        what, run = work.stand_in
        other = seconds(run)
        row |= {"stand-in": what, "stand-in us": other * 1e6, "% of stand-in": 100 * took / other}
    return row
