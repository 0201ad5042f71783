"""``vllm-sgl pairs``: its command line. Loads vLLM only to read models."""

import argparse
import os
from functools import partial
from itertools import combinations
from typing import Any

from vllm_sgl.pair import known
from vllm_sgl.serve.flags import json_object


def add_to(commands: Any) -> None:
    """Add the subcommand to a parser's subparsers."""
    parser = commands.add_parser(
        "pairs",
        help="say whether models make a pair, how, and what it costs",
        description="Read the files of two models, as a server would before it starts them, and say whether "
        "the first can guide the second: over a shared prompt, translated, crossed (importance is carried to "
        "where the second one's visual tokens lie), or not at all and why. Of more "
        "models, every one is tried as the guide of those after it. Without models: the series that are "
        "known. No weights are read. The exit status is 1 where a pair is refused.",
    )
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="*", help="directories or names, small ones before large ones")
    add("--trust-remote-code", action="store_true", help="as for vLLM")
    add("--small-args", type=json_object, default={}, metavar="JSON", help="as --sgl-small-args of a server")
    parser.set_defaults(run=partial(_main, parser))


def _main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if not options.models:
        print(known.table())
        return 0
    if len(options.models) == 1:
        parser.error(f"expected two models or more, small ones first; received {options.models[0]!r}")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read once, as vLLM loads
    from vllm_sgl.commands.pairs.judging import judge_pair

    refused = False
    for small, large in combinations(options.models, 2):
        judged = judge_pair(small, large, options.trust_remote_code, options.small_args)
        print(judged)
        refused = refused or judged.refused
    return int(refused)
