"""`python -m benchmarks.kernels`; see the package."""

import sys
from collections.abc import Sequence

import torch

from benchmarks import report
from benchmarks.arguments import add_out, make_parser

from . import operations  # noqa: F401  fills OPERATIONS
from .measure import measure, measure_ceilings
from .work import OPERATIONS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser("kernels", "How fast the kernels are, against their references and the device.")
    parser.add_argument("--only", choices=sorted(OPERATIONS), help="one operation")
    add_out(parser)
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
    report.write(options.out, "kernels", {**values, "wrong": wrong}, rows)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
