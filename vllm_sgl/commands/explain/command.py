"""``vllm-sgl explain``: its command line, and what it writes. Loads vLLM only to ask."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

from vllm_sgl.allowed import ALLOWED
from vllm_sgl.commands.arguments import count, number, threshold
from vllm_sgl.commands.explain import explanation
from vllm_sgl.commands.explain.explanation import Explanation, Said
from vllm_sgl.commands.output import stdout_to_stderr
from vllm_sgl.config import QueryRows
from vllm_sgl.evaluate.errors import UsageError
from vllm_sgl.serve import flags

RETENTIONS = (0.35, 0.18, 0.09)
PICTURE = Path("explain.png")


def add_to(commands: Any) -> None:
    """Add the subcommand to a parser's subparsers."""
    parser = commands.add_parser(
        "explain",
        help="show which visual tokens a question needs, what is kept, and both models' answers",
        description="Ask a pair of models one question and show what the small one looked at, which visual\n"
        "tokens the large one keeps, every answer, the exit score and the decision.",
        epilog=explanation.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("large", metavar="LARGE", help="the large model: a directory or a name")
    add("images", metavar="IMAGE", type=Path, nargs="+", help="image or video files to ask about")
    add("question", metavar="QUESTION")
    add("--small", required=True, metavar="SMALL", help="the small model")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"the picture: PNG, PDF or SVG (default: {PICTURE}, none where only --json is asked for)",
    )
    add("--json", metavar="FILE", help="write the numbers; - for standard output. Its fields are below")
    add(
        "--retention",
        type=_retention,
        action="append",
        metavar="R",
        help="a share of visual tokens to keep; may be repeated (default: 0.35 0.18 0.09)",
    )
    add("--exit-threshold", type=threshold, metavar="T", help="show the decision at this threshold")
    add(
        "--query-rows",
        choices=get_args(QueryRows),
        metavar="ROWS",
        help=f"rows whose attention makes up importance: {ALLOWED['query_rows']}",
    )
    add("--max-tokens", type=count, default=32, metavar="N", help="the longest answer (default: 32)")
    add("--trust-remote-code", action="store_true", help="as for vLLM")
    add(
        "--large-args",
        type=_object,
        default={},
        metavar="JSON",
        help="arguments of vllm_sgl.LLM: of vLLM's engine, such as "
        '\'{"dtype": "float16", "max_model_len": 8192}\', and sgl_* settings',
    )
    add("--small-args", type=_object, metavar="JSON", help="engine arguments of the small model alone")
    parser.set_defaults(run=partial(_main, parser))


def _main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    try:
        run(options)
    except UsageError as error:
        parser.error(str(error))
    return 0


def run(options: argparse.Namespace) -> None:
    """Ask, then write what was asked for.

    Raises:
        UsageError: for bad input; before the engines start where it can be known then.
    """
    output = options.output or (None if options.json else PICTURE)
    draw = None if output is None else _drawing(output)
    for path in filter(None, (output, _json_file(options.json))):
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: expected a file in a directory that exists; make {path.parent} first")
    with stdout_to_stderr():
        explained = _explain(options)
    # Standard output belongs to the JSON where that is asked for.
    log = sys.stderr if options.json == "-" else sys.stdout
    print(summary(explained), file=log)
    if options.json:
        text = json.dumps(explained.as_json(), ensure_ascii=False)
        if (path := _json_file(options.json)) is None:
            print(text)
        else:
            path.write_text(text + "\n", encoding="utf-8")
            print(f"written: {path}", file=log)
    if draw is not None and output is not None:
        draw(explained, output)
        print(f"written: {output}", file=log)


def summary(explained: Explanation) -> str:
    """Answers, score and decision, as lines of text."""
    total = explained.visual_tokens
    answers: list[tuple[str, int, Said]] = [
        ("small", total, explained.small_answer),
        ("large", total, explained.large_answer),
        *(("large", pruned.kept_tokens, pruned.answer) for pruned in explained.pruned),
    ]
    lines = [explained.question]
    lines += [f"  {model}  {kept:>6,} of {total:,} visual tokens  {a.text!r}" for model, kept, a in answers]
    parts = {name: getattr(explained, name) for name in ("confidence", "consistency", "score")}
    shown = [f"{name} {'-' if value is None else format(value, '.2f')}" for name, value in parts.items()]
    decision = explained.decision or "no threshold set"
    lines.append(f"  {', '.join(shown)}: {decision}" + (f" ({explained.reason})" if explained.reason else ""))
    return "\n".join(lines)


def _explain(options: argparse.Namespace) -> Explanation:
    for path in options.images:
        if not path.is_file():
            raise UsageError(
                f"{path}: no such file. Expected LARGE IMAGE... QUESTION: image or video files, then one "
                "question in quotes"
            )
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read once, as vLLM loads
    from vllm_sgl.commands.explain import asking

    arguments = {"trust_remote_code": options.trust_remote_code, **options.large_args}
    of_videos = (arguments.get("media_io_kwargs") or {}).get("video", {})
    images = [(str(path), asking.load(path, of_videos)) for path in options.images]
    if options.small_args is not None:
        arguments["sgl_small_args"] = options.small_args
    if options.query_rows is not None:
        arguments["sgl_query_rows"] = options.query_rows
    print(f"starting {options.small} and {options.large} ...", file=sys.stderr)
    return asking.explain(
        options.large,
        options.small,
        images,
        options.question,
        retentions=options.retention or RETENTIONS,
        exit_threshold=options.exit_threshold,
        max_tokens=options.max_tokens,
        arguments=arguments,
    )


def _drawing(output: Path) -> Callable[[Explanation, Path], None]:
    """The function that draws, once it is sure that it can."""
    try:
        from vllm_sgl.commands.explain import picture
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise UsageError(
            "the picture needs matplotlib, which is not installed: pip install 'vllm-sgl[plot]', or ask for "
            "the numbers alone with --json FILE"
        ) from error
    if output.suffix.lower() not in picture.SUFFIXES:
        raise UsageError(f"--output {output}: expected a name that ends in {', '.join(picture.SUFFIXES)}")
    return picture.draw


def _json_file(name: str | None) -> Path | None:
    return Path(name) if name and name != "-" else None


def _retention(text: str) -> float:
    allowed = "a number in (0, 1); the answer with every visual token is always shown"
    return number(text, allowed, lambda value: 0 < value < 1)


def _object(text: str) -> dict[str, Any]:
    return flags.json_object(text, f"{ALLOWED['small_args']} in JSON")
