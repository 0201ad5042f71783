"""Train the reader of Qwen2-VL's shape: `python -m tools.sign_reading.native --work DIR --out DIR`.

Stops and resumes at any point: run the same command again. The log is DIR/native/log.jsonl.
"""

import argparse
import shutil
from pathlib import Path

import torch

from tools.internvl_reference import native_checkpoint

from ..training import bank
from .model import export, new, tokenizer
from .prompts import NativePrompts
from .training import Trainer

MODELS = Path(__file__).parents[3] / "models"
PAGES = 800
READ, ANSWER, PAINTED = 600, 250, 40
"""Steps of the stages."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.sign_reading.native",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, required=True, help="checkpoints, log and painted tiles")
    parser.add_argument("--out", type=Path, required=True, help="where the finished checkpoint goes")
    parser.add_argument("--start", type=Path, default=MODELS / "signs-small", help="the InternVL reader")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pages", type=int, default=PAGES, help="painted pages of twelve tiles")
    parser.add_argument("--steps", type=int, nargs=3, default=(READ, ANSWER, PAINTED), help="of each stage")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    directory = arguments.work / "native"
    directory.mkdir(parents=True, exist_ok=True)
    words = tokenizer()
    model = new(words, arguments.start)
    teacher = native_checkpoint.load(arguments.start, _image_token(arguments.start))
    tiles = bank.make(range(arguments.pages), arguments.work)
    trainer = Trainer(model, teacher, NativePrompts(words), directory)
    read, answer, painted = arguments.steps
    trainer.read(tiles, read, 4e-3)
    trainer.answer(tiles, answer, 6, 1.5e-3, 1.5e-3)
    trainer.painted(painted, 6, 4e-4, 4e-4)
    export(model, words, arguments.out)
    shutil.copy(directory / "log.jsonl", arguments.out / "training_log.jsonl")


def _image_token(checkpoint: Path) -> int:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(checkpoint / "tokenizer.json")).token_to_id("<IMG_CONTEXT>")


if __name__ == "__main__":
    main()
