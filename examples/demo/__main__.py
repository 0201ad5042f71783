"""`python -m examples.demo`; see the package."""

import argparse
from pathlib import Path

from vllm_sgl.commands.arguments import json_object

from . import __doc__ as description
from .asker import Asker
from .explained import explain
from .picture_questions import EXAMPLES, EXPLAINED, WARM_UP, PictureQuestion, sign_question
from .shipped import LARGE, SHIPPED_ARGS, SMALL
from .table import ask_everything
from .vllm_serve import serving


def main() -> None:
    options = _parse()
    shipped = options.large is None
    large, small = (str(LARGE), str(SMALL)) if shipped else (options.large, options.small)
    engine_args = options.engine_args
    if engine_args is None:
        engine_args = SHIPPED_ARGS if shipped else {}
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.image:
        questions = [PictureQuestion((path,), options.question) for path in options.image]
        explained = questions[0]
    else:
        by_number = {number: sign_question(number, out) for number in EXAMPLES}
        questions, explained = list(by_number.values()), by_number[EXPLAINED]
    with serving(large, small, engine_args, out / "server.log") as address:
        ask_everything(Asker(address), questions, sign_question(WARM_UP, out))
    if shipped:
        print(
            "\nThese models gain no time: the large one is but three times the small one, and asking both "
            "takes longer than\nasking one. What they show is how few of its visual tokens a question needs."
        )
    explain(large, small, engine_args, explained, out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--large", metavar="MODEL", help="a large model of your own (default: the shipped pair)")
    add("--small", metavar="MODEL", help="the small model of the same family")
    add("--image", type=Path, action="append", metavar="FILE", help="a picture of your own; may be repeated")
    add("--question", default="What is in this picture?", help="about each of your pictures")
    add("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default: demo-out")
    add(
        "--engine-args",
        type=json_object,
        metavar="JSON",
        help='vLLM\'s, such as \'{"trust_remote_code": true, "max_model_len": 8192}\' '
        "(default: none, or what suits the shipped pair)",
    )
    options = parser.parse_args()
    if (options.large is None) != (options.small is None):
        parser.error("--large and --small go together")
    for path in options.image or []:
        if not path.is_file():
            parser.error(f"--image {path}: no such file")
    for model in (LARGE, SMALL) if options.large is None else ():
        if not (model / "model.safetensors").is_file():
            parser.error(
                f"there is no model in {model}, where the shipped pair should be. Restore it (git checkout "
                "-- models), train it (python -m tools.sign_reading.training --help), or name models of your "
                "own with --large and --small"
            )
    return options


if __name__ == "__main__":
    main()
