"""`python -m benchmarks.true_size NAME OUT_DIR`; see the package."""

from pathlib import Path

from benchmarks.arguments import make_parser

from . import MODELS, build


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser("true_size", "Write a checkpoint of true size without weights.")
    parser.add_argument("name", choices=MODELS, metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("out_dir", type=Path)
    options = parser.parse_args(arguments)
    size = MODELS[options.name]
    print(f"{build(size, options.out_dir)}: {size.repository}, {size.billions} B parameters")


if __name__ == "__main__":
    main()
