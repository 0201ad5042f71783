"""Train one of the two models: `python -m tools.sign_reading.training SIZE --work DIR --out DIR`.

Stops and resumes at any point: run the same command again. The log is DIR/SIZE/log.jsonl.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from . import bank, vision
from .decoder import Decoder
from .export import export
from .prompts import Prompts
from .sizes import SIZES, new, tokenizer


@dataclass(frozen=True)
class Round:
    """One descent of the learning rate for the vision encoder, over the bank of some pages."""

    pages: range
    steps: int
    rate: float


@dataclass(frozen=True)
class Plan:
    """Steps of every stage. Rows are images with four questions each."""

    vision: tuple[Round, ...]
    few: int
    tiles: int
    joint: int
    drop: int
    rate: float
    """Peak learning rate of the decoder while the encoder is frozen."""


FIRST = range(3000)
PLANS = {
    "small": Plan((Round(FIRST, 2600, 4e-3),), few=900, tiles=600, joint=600, drop=0, rate=3e-3),
    "large": Plan(
        (Round(FIRST, 2000, 4e-3), Round(range(3000, 7000), 1200, 2e-3), Round(range(7000), 3000, 2e-3)),
        few=800,
        tiles=400,
        joint=1200,
        drop=250,
        rate=2.5e-3,
    ),
}
ROWS = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.sign_reading.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, log and painted tiles")
    parser.add_argument("--out", type=Path, required=True, help="where the finished checkpoint goes")
    parser.add_argument("--untuned-out", type=Path, help="the checkpoint before the stage `drop`, too")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    size, plan, directory = SIZES[arguments.size], PLANS[arguments.size], arguments.work / arguments.size
    directory.mkdir(parents=True, exist_ok=True)
    words = tokenizer()
    model = new(size, words).to(arguments.device)
    tiles = None
    for number, descent in enumerate(plan.vision):
        tiles = bank.make(descent.pages, arguments.work)
        vision.train(model, tiles, descent.steps, directory, number, descent.rate)
    decoder = Decoder(model, Prompts(words), directory, plan.rate)
    decoder.few(tiles, plan.few, ROWS)
    decoder.tiles(tiles, plan.tiles, ROWS // 2)
    decoder.painted("joint", plan.joint, ROWS // 4, 0.3 * plan.rate, 6e-4, dropping=False)
    if arguments.untuned_out:
        export(model, size, words, arguments.untuned_out)
    if plan.drop:
        decoder.painted("drop", plan.drop, ROWS // 4, 0.15 * plan.rate, 1e-4, dropping=True)
    export(model, size, words, arguments.out)
    shutil.copy(directory / "log.jsonl", arguments.out / "training_log.jsonl")


if __name__ == "__main__":
    main()
