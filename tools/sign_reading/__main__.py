"""`python -m tools.sign_reading --split test --count 200 --out DIR` writes images and questions.jsonl."""

import argparse
from pathlib import Path

from . import write


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.sign_reading", description=__doc__)
    parser.add_argument("--split", default="test", choices=("train", "test"))
    parser.add_argument("--count", type=int, default=200, help="number of questions")
    parser.add_argument("--out", type=Path, required=True, help="directory, made if missing")
    arguments = parser.parse_args()
    print(write(arguments.split, arguments.count, arguments.out))


if __name__ == "__main__":
    main()
