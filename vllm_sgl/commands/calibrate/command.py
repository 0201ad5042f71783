"""``vllm-sgl calibrate``: its command line. Loads numpy and vLLM only to work."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

from vllm_sgl.allowed import ALLOWED
from vllm_sgl.commands.arguments import count, json_object, percentage, share, threshold
from vllm_sgl.config import ExitScore
from vllm_sgl.evaluate.errors import UsageError
from vllm_sgl.evaluate.metrics import METRICS

RETENTIONS = (0.64, 0.35, 0.18, 0.09)
POLICIES = ("top", "tiles")

_EPILOG = """\
One of --data, --base-url with --data, and --log says where the requests come from:

  --data FILE                 starts both models in this process and asks every question under every setting
  --data FILE --base-url URL  asks a running server (with --sgl-break-even off)
  --log FILE...               reads --sgl-shadow-log files: exits only, since a shadow never prunes

The data has one JSON object a line, with paths relative to the file:

  {"image": "7.png", "question": "What is the code?", "answers": ["42"]}

"images" takes a list. "answers" may be missing in every line: the large model's own answers are the reference
then.

Exit status: 0 where a setting can be promised, 1 where none can, 2 where something has to be put right first.
"""


def add_to(commands: Any) -> None:
    """Add the subcommand to a parser's subparsers."""
    parser = commands.add_parser(
        "calibrate",
        help="find the cheapest settings whose loss stays below a stated one, with a guarantee",
        description="Find retention, policy and exit threshold for a pair of models: the cheapest setting\n"
        "whose loss against the large model alone is promised to be at most --max-loss.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("large", metavar="LARGE", nargs="?", help="the large model: a directory or a name")
    add("--small", metavar="SMALL", help="the small model")
    add("--data", type=Path, metavar="FILE", help="JSON Lines of questions; the format is below")
    add("--base-url", metavar="URL", help="a running server to ask, such as http://localhost:8000/v1")
    add("--log", type=Path, nargs="+", metavar="FILE", help="what shadow servers logged (--sgl-shadow-log)")
    add(
        "--out", type=Path, default=Path("calibration"), metavar="DIR",
        help="answers, figures and picture; a run that was cut off goes on there (default: calibration)",
    )  # fmt: skip
    add(
        "--max-loss", type=percentage, default=0.01, metavar="L",
        help="the mean loss per request that may be promised, 1%% or 0.01 (default: 1%%)",
    )  # fmt: skip
    add(
        "--confidence", type=percentage, default=0.9, metavar="C",
        help="the least probability with which the promise holds (default: 0.9)",
    )  # fmt: skip
    add(
        "--metric", choices=METRICS, default="exact",
        help="how answers are scored against those in the data (default: exact)",
    )  # fmt: skip
    add(
        "--retention", type=share, nargs="+", default=RETENTIONS, metavar="R",
        help="shares of visual tokens to try; 1 always is (default: .64 .35 .18 .09)",
    )  # fmt: skip
    add("--policy", nargs="+", default=POLICIES, metavar="P", help="policies to try (default: top tiles)")
    add(
        "--exit-threshold", type=threshold, nargs="+", metavar="T",
        help="thresholds to try (default: 60 of the scores that occur)",
    )  # fmt: skip
    add(
        "--exit-score", nargs="+", choices=get_args(ExitScore), metavar="NAME",
        help=f"exit scores to try: {ALLOWED['exit_score']} (default: all, or all that a log has)",
    )  # fmt: skip
    add(
        "--cost", choices=("seconds", "tokens"), default="seconds",
        help="what makes a setting cheap: the seconds of both models' passes, where they are started here "
        "(the default), or the visual tokens that the large model is given",
    )  # fmt: skip
    add("--max-tokens", type=count, default=32, metavar="N", help="the longest answer (default: 32)")
    add("--limit", type=count, metavar="N", help="the first N questions only")
    add(
        "--seed", type=int, default=0, help="of the split into requests that order and that test (default: 0)"
    )
    add("--concurrency", type=count, default=32, metavar="N", help="requests in flight (default: 32)")
    add("--no-picture", action="store_true", help="write no picture; needs no matplotlib")
    add("--trust-remote-code", action="store_true", help="as for vLLM")
    add(
        "--large-args", type=json_object, default={}, metavar="JSON",
        help="arguments of vllm_sgl.LLM: of vLLM's engine, and sgl_* settings",
    )  # fmt: skip
    add(
        "--small-args", type=json_object, default={}, metavar="JSON",
        help="engine arguments of the small model alone",
    )  # fmt: skip
    parser.set_defaults(run=partial(_main, parser))


def _main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    try:
        _check(options)
        from vllm_sgl.commands.calibrate import run

        return run.run(options)
    except UsageError as error:
        parser.error(str(error))


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together, before anything starts.

    Raises:
        UsageError: with what is expected.
    """
    if (options.data is None) == (options.log is None):
        raise UsageError("expected --data FILE of questions, or --log FILE of a server in shadow mode")
    if options.log is not None and options.base_url:
        raise UsageError("--base-url goes with --data: a log is read, no server is asked")
    if options.data is not None and not options.base_url and not (options.large and options.small):
        raise UsageError("expected LARGE and --small SMALL to start them, or --base-url URL of a server")
    if options.log is not None and options.metric != "exact":
        raise UsageError(f"--metric {options.metric}: a log says only whether answers agree; leave it out")
    if not options.no_picture:
        try:
            import matplotlib  # noqa: F401
        except ModuleNotFoundError:
            raise UsageError(
                "the picture needs matplotlib, which is not installed: pip install 'vllm-sgl[plot]', or do "
                "without it: --no-picture"
            ) from None
    from vllm_sgl.prune.auto import AUTO
    from vllm_sgl.prune.registry import check_policy

    for name in options.policy:
        if name == AUTO:
            raise UsageError("--policy auto: expected the policies that it chooses from, such as: top tiles")
        try:
            check_policy(name, key="--policy")
        except ValueError as error:
            raise UsageError(str(error)) from None


def say(text: str) -> None:
    """One line on stderr, so that stdout holds results only."""
    print(text, file=sys.stderr, flush=True)
