"""`python -m tools.sign_reading --split test --count 200 --out DIR` writes images and questions.jsonl."""

import argparse
from pathlib import Path

from . import write
from .clips import clip
from .crowd import crowded
from .split import write_examples


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.sign_reading", description=__doc__)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--split", default="test", choices=("train", "test"))
    kinds.add_argument(
        "--signs", type=int, metavar="N", help="crowded scenes of N signs, one of them asked for"
    )
    kinds.add_argument("--clips", action="store_true", help="clips of eight frames, one image each")
    parser.add_argument("--count", type=int, default=200, help="number of questions")
    parser.add_argument("--out", type=Path, required=True, help="directory, made if missing")
    arguments = parser.parse_args()
    numbers = range(arguments.count)
    if arguments.clips:
        print(write_examples(map(clip, numbers), "clip", arguments.out))
    elif arguments.signs:
        crowd = (crowded(number, arguments.signs) for number in numbers)
        print(write_examples(crowd, f"crowd-{arguments.signs}", arguments.out))
    else:
        print(write(arguments.split, arguments.count, arguments.out))


if __name__ == "__main__":
    main()
