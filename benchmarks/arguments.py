"""Arguments that the benchmarks share, so that one name means one thing in all of them."""

import argparse
from pathlib import Path

from vllm_sgl.commands.arguments import count

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"


def make_parser(name: str, about: str, more: str | None = None) -> argparse.ArgumentParser:
    """name: of the module below ``benchmarks``. about: one line. more: text behind the arguments."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_out(
    parser: argparse.ArgumentParser, default: str | None = None, what: str = "the JSON", folder: bool = False
) -> None:
    """``--out``. default: a name below ``benchmarks/results``; nothing is written where there is none."""
    where = None if default is None else RESULTS / default
    said = "nowhere" if where is None else str(where.relative_to(ROOT))
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR" if folder else "FILE",
        default=where,
        help=f"where {what} goes (default: {said})",
    )


def add_work(parser: argparse.ArgumentParser) -> None:
    """``--work``."""
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="keep checkpoints and logs here (default: a temporary folder)",
    )


def add_rounds(parser: argparse.ArgumentParser, default: int | None, what: str = "how often") -> None:
    """``--rounds``. default: None for a preset's own."""
    said = "the preset's" if default is None else default
    parser.add_argument(
        "--rounds", type=count, default=default, metavar="N", help=f"{what} (default: {said})"
    )
