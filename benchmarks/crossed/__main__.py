"""`python -m benchmarks.crossed`; see the package."""

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import report
from benchmarks.arguments import add_out, make_parser
from examples.demo.shipped import LARGE, MODELS, SMALL
from tools.sign_reading import example
from vllm_sgl.commands.arguments import count

from .measure import measure
from .readers import InternVLReader, NativeReader, Reader

NATIVE = MODELS / "signs-native"
#: Most tiles of a guide; the first is the large model's own number.
TILES = (12, 6, 4, 1)
#: Most visual tokens of a guide of the other family: all of them, and half.
TOKENS = (None, 80)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("crossed", "Guides on fewer tiles, or of another family, question by question.")
    parser.add_argument("kind", choices=("tilings", "families"), help="what differs")
    parser.add_argument(
        "--questions", type=count, default=200, metavar="N", help="of the signs' test split (default: 200)"
    )
    parser.add_argument("--native", type=Path, default=NATIVE, help="the reader of the other family")
    add_out(parser)
    options = parser.parse_args(arguments)
    environment = report.environment()
    report.print_environment(environment)
    found = []
    for large, guides in pairs(options.kind, options.native):
        examples = (example("test", number) for number in range(options.questions))
        measured = measure(large, guides, examples)
        found += [one.row(large.name, setting) for setting, one in measured.items()]
    report.print_table({name: value for name, value in row.items() if name != "right"} for row in found)
    report.write(options.out, "crossed", environment, found)


def pairs(kind: str, native: Path) -> list[tuple[Reader, list[Reader]]]:
    """Large models, each with its guides."""
    if kind == "tilings":
        return [(InternVLReader(LARGE), [InternVLReader(SMALL, tiles) for tiles in TILES])]
    return [
        (InternVLReader(LARGE), [NativeReader(native, tokens) for tokens in TOKENS]),
        (NativeReader(native), [InternVLReader(SMALL), NativeReader(native)]),
    ]


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
