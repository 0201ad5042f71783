"""The command line."""

import argparse
from pathlib import Path

from benchmarks.arguments import make_parser as common
from vllm_sgl.commands.arguments import count, json_object, share, threshold
from vllm_sgl.evaluate.metrics import METRICS

from .settings import METHODS

RETENTIONS = (1.0, 0.64, 0.35, 0.18, 0.09)
POSITIONS = ("original", "packed")


def make_parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<11} {method.about}" for name, method in METHODS.items())
    made = common(
        "accuracy", "Accuracy of pruning and early exits through the real serving path.", f"methods:\n{lines}"
    )
    add = made.add_argument
    add("large", metavar="LARGE", help="the large model: a directory or a name")
    add("--small", required=True, metavar="SMALL", help="the small model")
    add(
        "--data",
        required=True,
        type=Path,
        metavar="FILE",
        help="JSON Lines of questions; see vllm_sgl/evaluate/questions.py",
    )
    add(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="answers, figures and pictures; an earlier run is resumed",
    )
    add("--limit", type=count, metavar="N", help="the first N questions only")
    add(
        "--retention",
        nargs="+",
        type=share,
        default=RETENTIONS,
        metavar="R",
        help="shares of visual tokens (default: 1 .64 .35 .18 .09)",
    )
    add(
        "--methods",
        nargs="+",
        choices=METHODS,
        metavar="METHOD",
        help="see below (default: all that are possible)",
    )
    add("--positions", nargs="+", choices=POSITIONS, help="of kept visual tokens (default: original)")
    add(
        "--query-rows",
        nargs="+",
        metavar="ROWS",
        help="values of sgl_query_rows for sgp (default: the default)",
    )
    add(
        "--exit-threshold",
        nargs="+",
        type=threshold,
        default=(),
        metavar="T",
        help="also ask these of the real path; curves over every threshold come without",
    )
    add(
        "--metric",
        choices=METRICS,
        default="exact",
        help="for table and pictures; the JSON has all (default: exact)",
    )
    add("--max-tokens", type=count, default=16, metavar="N", help="longest answer (default: 16)")
    add("--seed", type=int, default=0, help="of random pruning (default: 0)")
    add(
        "--base-url",
        metavar="URL",
        help="ask a running server, e.g. http://localhost:8000/v1, instead of starting engines",
    )
    add("--concurrency", type=count, default=32, metavar="N", help="requests in flight (default: 32)")
    add("--trust-remote-code", action="store_true", help="as for vLLM")
    add("--large-args", type=json_object, default={}, metavar="JSON", help="arguments of vllm_sgl.LLM")
    add(
        "--small-args",
        type=json_object,
        default={},
        metavar="JSON",
        help="engine arguments of the small model alone",
    )
    return made
