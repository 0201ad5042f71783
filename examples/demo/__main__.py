"""`python -m examples.demo`; see the package."""

import argparse
from pathlib import Path

from vllm_sgl.commands.arguments import json_object

from . import __doc__ as description
from .asker import Asker
from .explained import explain
from .measuring import measure
from .picture_questions import EXAMPLES, EXPLAINED, WARM_UP, PictureQuestion, sign_question
from .shipped import LARGE, SETTINGS, SHAPE_NAME, SHIPPED_ARGS, SMALL
from .table import answers, table, verdict, wrong_answers
from .vllm_serve import serving
from .widened import widened_pair

ABOUT_TABLE = """\
plain: the large model alone, asked of the same server with sgl_enabled: 0. right: every answer was, alone and
in company. Seconds: medians, one question at a time, settings in turn. Every request names its images anew,
so that no cache answers for an earlier one."""
ABOUT_MODELS = f"""\
The models: the shipped sign readers, widened to the proportions of {SHAPE_NAME} by work that
changes no answer (tools/sign_reading/widen.py). What SGL is worth to yours, only yours can tell."""


def main() -> None:
    options = _parse()
    shipped = options.large is None
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    if shipped:
        large, small = map(str, widened_pair(options.cache or out))
    else:
        large, small = options.large, options.small
    engine_args = options.engine_args
    if engine_args is None:
        engine_args = SHIPPED_ARGS if shipped else {}
    if options.image:
        questions = [PictureQuestion((path,), options.question) for path in options.image]
        explained = questions[0]
    else:
        by_number = {number: sign_question(number, out) for number in EXAMPLES}
        questions, explained = list(by_number.values()), by_number[EXPLAINED]
    with serving(large, small, engine_args, out / "server.log") as address:
        print(f"asking {len(questions)} question(s) under {len(SETTINGS)} settings", flush=True)
        found = measure(Asker(address), questions, SETTINGS, sign_question(WARM_UP, out))
    said = answers(found) if options.image else wrong_answers(found)
    print(table(found), "", verdict(found), *said, "", ABOUT_TABLE, sep="\n")
    if shipped:
        print(ABOUT_MODELS)
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
    add("--cache", type=Path, metavar="DIR", help="where the widened pair is kept (default: as --out)")
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
