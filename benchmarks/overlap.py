"""Whether encoding an image for the large model while the guide looks at it could pay.

    python -m benchmarks.overlap [--preset NAME] [--requests N] [--out FILE]

Two servers of one pair, the small model alone and the large model alone, share the machine as SGL's engines
do. Each request is asked of both: **in turn**, the guide's whole pass and then the large model's prefill, as
SGL does it, or **at once**. At once is more than any overlap could reach: the large model need not wait for
which tokens are kept, and nothing is encoded in vain. The guide's pass is shorter than the encoding, so the
overlap with the decoder's prefill, which cannot begin so early, adds nothing. Orders alternate; no image is
asked twice.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tqdm import tqdm

from benchmarks import report
from benchmarks.serve import answers
from benchmarks.serve.components import Samples
from benchmarks.serve.presets import PRESETS, Preset
from benchmarks.serve.sources import Request
from benchmarks.serving.load import body
from benchmarks.serving.pair import layouts
from benchmarks.serving.server import Server, running
from benchmarks.serving.workspace import ROOT, BenchmarkError, Workspace, stoppable
from vllm_sgl.commands.arguments import count

_PRESET = "signs-26b"
_LONGEST = 1800


@dataclass(frozen=True)
class Times:
    """Seconds of one image. guide: the small model's pass. prefill: the large model's, to its first token.
    at_once: of the longer of both, side by side."""

    guide: float
    prefill: float
    at_once: float

    @property
    def gain(self) -> float:
        """In turn over at once; above 1 is sooner."""
        return (self.guide + self.prefill) / self.at_once


def row(times: Sequence[Times], vision: float) -> dict[str, Any]:
    """vision: seconds of the large model's encoder, per image."""
    gains = [one.gain for one in times]
    low, _, high = quantiles(gains, n=4)
    return {
        "images": len(times),
        "guide s": median(one.guide for one in times),
        "large prefill s": median(one.prefill for one in times),
        "of it encoding s": vision,
        "at once s": median(one.at_once for one in times),
        "in turn / at once": median(gains),
        "quartiles": f"{low:.3f} to {high:.3f}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    stoppable()
    preset = PRESETS[options.preset]
    with tempfile.TemporaryDirectory(prefix="overlap-benchmark-") as temporary:
        workspace = Workspace(preset.cpu, Path(temporary), time.monotonic() + _LONGEST)
        try:
            workspace.prepare()
            about = workspace.describe() | {"layouts": layouts(preset.cpu)}
            report.print_environment(about)
            times, vision = _measure(workspace, preset, options.requests)
        except BenchmarkError as error:
            report.progress(str(error))
            return 1
    found = row(times, vision)
    report.print_table([found])
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        values = {**about, "benchmark": "overlap", "preset": options.preset}
        values["times"] = [asdict(one) for one in times]
        report.write_json(options.out, values, [found])
        report.progress(f"written: {options.out}")
    return 0


def _measure(workspace: Workspace, preset: Preset, requests: int) -> tuple[list[Times], float]:
    """
    Raises:
        BenchmarkError: where a server does not start, or the large model does not read.
    """
    preset.pair.write(workspace.work)
    small, large = (preset.pair.server(workspace, side) for side in ("small", "plain"))
    report.progress("starting small, plain")
    with running(small, large), ThreadPoolExecutor(2) as pool:
        fixed = preset.asked.aside(preset.answers)
        replies = answers.answer(large, preset, fixed)
        if preset.asked.known:
            answers.right(fixed, replies)
        answers.answer(small, preset, fixed)
        samples = Samples()
        samples.measure(large, replace(preset, loads={1: 8}), small=False)
        found = [_asked(small, large, preset, pool, number) for number in tqdm(range(requests), unit="image")]
    return found, max(0.0, median(samples.vision))


def _asked(small: Server, large: Server, preset: Preset, pool: ThreadPoolExecutor, number: int) -> Times:
    """The same question both ways, about images that no server has seen. Odd ones begin at once."""
    numbers = [number]

    def guide(request: Request) -> float:
        tokens = request.answer_tokens
        return _seconds(small, body(request.content, tokens, None, preset.asked.fixed_length))

    def prefill(request: Request) -> float:
        return _seconds(large, body(request.content, 1, None, preset.asked.fixed_length))

    def in_turn() -> tuple[float, float]:
        (request,) = preset.asked.make(numbers)
        return guide(request), prefill(request)

    def at_once() -> float:
        (request,) = preset.asked.make(numbers)
        began = time.perf_counter()
        list(pool.map(lambda ask: ask(request), (guide, prefill)))
        return time.perf_counter() - began

    if number % 2:
        together = at_once()
        return Times(*in_turn(), together)
    return Times(*in_turn(), at_once())


def _seconds(server: Server, request: bytes) -> float:
    began = time.perf_counter()
    server.post("/v1/chat/completions", request)
    return time.perf_counter() - began


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overlap",
        description="The guide's pass and the large model's prefill, in turn and at once.",
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, default=_PRESET, help=f"which pair (default: {_PRESET})")
    add("--requests", type=count, default=40, metavar="N", help="images (default: 40)")
    add("--out", type=Path, metavar="FILE", default=ROOT / "benchmarks/results/overlap.json",
        help="where the JSON goes (default: benchmarks/results/overlap.json)")  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
