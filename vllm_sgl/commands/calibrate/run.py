"""From the command line's options to files and an exit status."""

import argparse
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vllm_sgl.commands.calibrate import asking, choosing, report, sequence, shadow_log, ways
from vllm_sgl.commands.calibrate.asking import Asker
from vllm_sgl.commands.calibrate.choosing import Choice, Promise
from vllm_sgl.commands.calibrate.cost import Cost, SecondsCost, TokensCost
from vllm_sgl.commands.calibrate.losses import Requests, groups
from vllm_sgl.commands.calibrate.report import Calibration
from vllm_sgl.commands.output import stdout_to_stderr
from vllm_sgl.decide.scores.registry import SCORES
from vllm_sgl.evaluate.errors import UsageError
from vllm_sgl.evaluate.provenance import identity, versions
from vllm_sgl.evaluate.questions import Question, load


@dataclass(frozen=True)
class _Seen:
    """What is known of the requests. thresholds: those to try, None for some of the scores. loss: what one
    is, in words. run: what they depend on. lowest: the threshold below which nothing is known."""

    requests: Requests
    cost: Cost
    thresholds: list[float] | None
    loss: str
    run: dict[str, Any]
    lowest: float = 0.0


def run(options: argparse.Namespace) -> int:
    """Ask or read, choose, and tell; 0 where a setting can be promised, else 1.

    Raises:
        UsageError: for bad data, a server or log that is of no use, or an output folder of another run.
    """
    promise = Promise(options.max_loss, options.confidence)
    if options.log is not None:
        seen = _logged(options)
        requests, count = len(seen.requests), len(seen.requests.group_sizes())
    else:
        questions = load(options.data, options.limit, answered=False)
        requests = len(questions)
        count = len(set(groups([question.depends_on for question in questions])))
    if count < promise.fewest:  # before hours of asking
        print(report.too_few(count, promise, requests))
        return 1
    if options.log is None:
        with stdout_to_stderr():
            seen = _asked(options, questions)

    def choose(among: Requests) -> Choice:
        return choosing.choose(among, promise, seen.cost, seen.thresholds, options.seed, seen.lowest)

    scores = seen.requests.scores
    choice = choose(seen.requests)
    calibration = Calibration(
        options.large or "LARGE",
        options.small or "SMALL",
        seen.loss,
        promise,
        seen.requests,
        seen.cost,
        choice,
        {name: choose(seen.requests.by(name)) for name in scores} if len(scores) > 1 else {},
    )
    print(report.summary(calibration))
    _write(options, calibration, seen.run)
    return 0 if choice.chosen is not None else 1


def _logged(options: argparse.Namespace) -> _Seen:
    log = shadow_log.read(options.log)
    known = log.requests.scores
    names = [name for name in options.exit_score or known if name in known]
    if not names:
        raise UsageError(
            f"--exit-score {' '.join(options.exit_score)}: expected some of {', '.join(known)}, which the "
            "log has. A shadow server with --sgl-exit-score paper and --sgl-exit-threshold 0 logs all of them"
        )
    log = replace(log, requests=replace(log.requests, scores={name: known[name] for name in names}))
    wanted = options.exit_threshold or [
        one for score in log.requests.scores.values() for one in sequence.scores(score)
    ]
    if wanted and not any(one >= log.lowest for one in wanted):
        raise UsageError(
            f"--exit-threshold: expected some from {log.lowest:g} on, where the log's scores begin; received "
            f"{wanted}. Start the shadow server with --sgl-exit-threshold 0 to score every request"
        )
    run = {"log": [str(path) for path in options.log], "versions": versions()}
    # Where none are given, the scores of the requests that order make them: those that test must not.
    given = options.exit_threshold and [one for one in options.exit_threshold if one >= log.lowest]
    loss = report.DISAGREEMENT.format("exact")
    return _Seen(log.requests, TokensCost(), given or None, loss, run, log.lowest)


def _asked(options: argparse.Namespace, questions: list[Question]) -> _Seen:
    if options.base_url:
        start: Any = partial(asking.endpoint, options.base_url, options.large)
    else:
        arguments = {"trust_remote_code": options.trust_remote_code, **options.large_args}
        if options.small_args:
            arguments["sgl_small_args"] = options.small_args
        start = partial(asking.engines, options.large, options.small, arguments)
    run = identity(options)
    asker = Asker(options.out, run, start)
    wanted = ways.plan(options.policy, options.retention, options.exit_score or SCORES)
    asker.ask(questions, wanted, options.max_tokens, options.concurrency)
    requests = Requests.of(questions, wanted, asker.records, options.metric)
    measured = asker.costs if options.cost == "seconds" else None
    cost = TokensCost() if measured is None else SecondsCost(measured)
    loss = report.LOST if questions[0].answers else report.DISAGREEMENT
    return _Seen(requests, cost, options.exit_threshold, loss.format(options.metric), run)


def _write(options: argparse.Namespace, calibration: Calibration, run: dict[str, Any]) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    report.write(options.out / "calibration.json", calibration, {"run": run, "seed": options.seed})
    report.write_requests(options.out / "requests.json", calibration, {"run": run})
    written = ["calibration.json", "requests.json"]
    if not options.no_picture:
        from vllm_sgl.commands.calibrate import picture

        picture.draw(calibration, options.out / "calibration.png")
        written.append("calibration.png")
    print("written: " + ", ".join(str(options.out / name) for name in written))
