"""Does a calibration keep its promise? On random halves of requests whose losses are all known.

    python -m benchmarks.calibration_splits calibration/requests.json --splits 500

``vllm-sgl calibrate`` leaves ``requests.json``. One half of the requests is calibrated on, as the command
does; on the other half the chosen setting's loss is measured. A promise is broken where that is above the
level, and no more than 1 - confidence of the promises may be. The loss of all requests is shown beside it,
because half of the requests are a sample too: a promise that holds for all may look broken on one half.

``--keep FILE`` writes the table of requests with machine, versions and commit, as
benchmarks/results/calibration-signs.json has them. Of a file that has its own already they stay, and
``splits_made`` says with what the splits were worked out.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.arguments import make_parser
from vllm_sgl.commands.arguments import count, percentage
from vllm_sgl.commands.calibrate import choosing
from vllm_sgl.commands.calibrate.choosing import Promise
from vllm_sgl.commands.calibrate.cost import TokensCost
from vllm_sgl.commands.calibrate.losses import Requests, Setting


@dataclass(frozen=True)
class Split:
    """One calibration. held_out, all: the chosen setting's mean loss there; 0 where nothing was promised."""

    chosen: Setting | None
    held_out: float
    all: float
    cost: float


def splits(requests: Requests, promise: Promise, number: int, seed: int = 0) -> Iterator[Split]:
    """Calibrations on so many random halves."""
    rng = np.random.default_rng(seed)
    cost = TokensCost()
    for _ in range(number):
        rows = rng.permutation(len(requests))
        half = len(rows) // 2
        used, held_out = requests.some(rows[:half]), requests.some(rows[half:])
        chosen = choosing.choose(used, promise, cost, seed=int(rng.integers(1 << 31))).chosen
        if chosen is None:
            yield Split(None, 0.0, 0.0, 1.0)
            continue
        losses = [float(some.losses(chosen).mean()) for some in (held_out, requests)]
        yield Split(chosen, *losses, cost.of(held_out, chosen))


def row(requests: Requests, promise: Promise, number: int) -> dict[str, object]:
    """One line of the table."""
    made = list(splits(requests, promise, number))
    promised = [split for split in made if split.chosen is not None]
    return {
        "loss at most %": 100 * promise.max_loss,
        "confidence": promise.confidence,
        "splits": number,
        "promised": len(promised),
        "broken, held out": sum(split.held_out > promise.max_loss for split in made),
        "broken, all": sum(split.all > promise.max_loss for split in made),
        "allowed": promise.error * number,
        "mean loss held out %": 100 * np.mean([split.held_out for split in promised]) if promised else None,
        "visual tokens": np.mean([split.cost for split in made]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser("calibration_splits", "Does a calibration keep its promise?", __doc__)
    add = parser.add_argument
    add("requests", type=Path, metavar="FILE", help="requests.json of a calibration, or what --keep wrote")
    add("--splits", type=count, default=500, metavar="N", help="default: 500")
    add("--max-loss", type=percentage, nargs="+", default=[0.02, 0.03, 0.05], metavar="L")
    add("--confidence", type=percentage, default=0.9, metavar="C")
    add("--keep", type=Path, metavar="FILE", help="write the requests with machine, versions and commit")
    options = parser.parse_args(arguments)
    found = json.loads(options.requests.read_text())
    requests = Requests.parse(found)
    print(f"{len(requests)} requests; loss: {found['loss']}")
    promises = [Promise(level, options.confidence) for level in options.max_loss]
    rows = [row(requests, promise, options.splits) for promise in promises]
    report.print_table(rows)
    if options.keep is not None:
        environment = report.environment()
        kept = {**environment, **found, "splits": rows, "splits_made": environment}
        options.keep.write_text(json.dumps(kept) + "\n")
        report.progress(f"written: {options.keep}")


if __name__ == "__main__":
    main()
