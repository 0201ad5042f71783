"""How fast the kernels are, against their references and against what the device can do.

    python -m benchmarks.kernels [--only NAME] [--json FILE]

An operation is verified first; one that disagrees with its naive reference gets no number, and the exit
status is 1. Times are medians on CUDA events with a cold L2 cache. Operations are registered in
``kernel_operations.py``. Without a CUDA GPU only the references run, on small shapes.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import report


@dataclass(frozen=True)
class Work:
    """One operation on one shape, ready to run.

    verify: raises AssertionError where kernel and naive disagree.
    moved: bytes that must be read and written at least once. flops: multiplications and additions done.
    stand_in: what runs beside the kernel in a model, to compare with; its name says what it is.
    """

    kernel: Callable[[], Any]
    naive: Callable[[], Any]
    verify: Callable[[], None]
    moved: int
    flops: int = 0
    stand_in: tuple[str, Callable[[], Any]] | None = None


@dataclass(frozen=True)
class Operation:
    """build: (device, **shape) -> Work. shapes: on a GPU, by name. small: the one that a CPU runs."""

    name: str
    build: Callable[..., Work]
    shapes: dict[str, dict[str, Any]]
    small: dict[str, Any]


COLUMNS = (
    "kernel us", "naive us", "vs naive", "GB/s", "% of copy", "TFLOP/s", "% of matmul",
    "stand-in", "stand-in us", "% of stand-in",
)  # fmt: skip
OPERATIONS: dict[str, Operation] = {}


def operation(small: dict[str, Any], **shapes: dict[str, Any]) -> Callable:
    """Register a function (device, **shape) -> Work under its name."""

    def register(build: Callable[..., Work]) -> Callable[..., Work]:
        OPERATIONS[build.__name__] = Operation(build.__name__, build, shapes, small)
        return build

    return register


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


def main(arguments: list[str] | None = None) -> int:
    from benchmarks import kernel_operations  # noqa: F401  fills OPERATIONS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=sorted(OPERATIONS), help="one operation")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    options = parser.parse_args(arguments)

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    values = report.environment()
    report.print_environment(values)
    ceilings = None
    if cuda:
        report.progress("measuring what the device can do ...")
        ceilings = measure_ceilings(device)
        values |= {"copy GB/s": ceilings.bandwidth / 1e9, "matmul TFLOP/s": ceilings.compute / 1e12}
        print("ceilings  copy {copy GB/s:.0f} GB/s, matmul {matmul TFLOP/s:.0f} TFLOP/s".format_map(values))
    else:
        print("No CUDA GPU: only the naive references run, on small shapes. No kernel was verified or timed.")

    rows, wrong = [], []
    for chosen in OPERATIONS.values():
        if options.only not in (None, chosen.name):
            continue
        for shape, sizes in (chosen.shapes if cuda else {"small": chosen.small}).items():
            report.progress(f"{chosen.name}, {shape} ...")
            work = chosen.build(device, **sizes)
            try:
                if cuda:
                    work.verify()
            except AssertionError as error:
                wrong.append(f"{chosen.name}, {shape}: kernel and naive disagree: {error}")
                continue
            rows.append(measure(chosen.name, shape, work, ceilings))
    report.print_table(rows)
    for line in wrong:
        print(line)
    if options.json:
        report.write_json(options.json, {**values, "wrong": wrong}, rows)
    return 1 if wrong else 0


if __name__ == "__main__":
    # Under its own name, so that kernel_operations.py registers with this registry and not a second one.
    from benchmarks.kernels import main

    sys.exit(main())
