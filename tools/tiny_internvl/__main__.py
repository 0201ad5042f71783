"""`python -m tools.tiny_internvl OUT_DIR` writes the default pair and prints both paths."""

import argparse
from pathlib import Path

from . import DECODER_PAIRS, LARGE_LLAMA, LARGE_QWEN2, SMALL_LLAMA, SMALL_QWEN2, build_pair

PAIRS = {"qwen2": (SMALL_QWEN2, LARGE_QWEN2), "llama": (SMALL_LLAMA, LARGE_LLAMA), **DECODER_PAIRS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_internvl", description=__doc__)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--decoder", choices=PAIRS, default="qwen2")
    arguments = parser.parse_args()
    for path in build_pair(arguments.out_dir, *PAIRS[arguments.decoder]):
        print(path)


if __name__ == "__main__":
    main()
