"""What queues where before a first token: a model of two engines that share a device, in steps.

    python -m benchmarks.first_token [--json FILE]

Closed-loop clients ask a plain server and an SGL server of the same large model. Each engine works as vLLM's
does: a step takes the next token of every running request, then prompts in order of arrival, as far as its
token budget and its encoder budget go; an image that does not fit the rest of the encoder budget ends its
prompt for this step. Seconds of a step are those of what is in it, and two busy engines each run at half
speed. Nothing here is measured: it shows what the order of work does by itself, on any device, and
`benchmarks.serve` shows what comes of it.

**kept** charges a pruned image by the tokens that it has left, as vLLM does; **encoded** by the visual tokens
that are encoded for it (`vllm_sgl/host/worker/encoder_budget.py`). **guide 1** gives the guide one request at
a time, besides.
"""

import argparse
import heapq
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report


@dataclass(frozen=True)
class Device:
    """Seconds of whole requests' parts, and what a request is.

    vision, language: of the large model. guide: of the small one's pass. step: of any step beside. text:
    prompt tokens before and after the image's. answers: lengths, drawn evenly. budget: tokens of a step.
    """

    name: str
    vision: float
    language: float
    guide: float
    step: float
    visual: int
    text: int
    answers: Sequence[int]
    budget: int
    sequences: int


#: In the proportions of `benchmarks.serve --preset cpu`, of InternVL2-26B with a 2B on a GPU with vLLM's
#: budget there, and of the sign readers.
DEVICES = (
    Device("cpu preset", 0.12, 0.75, 0.12, 0.01, 1280, 70, (8,), 2048, 16),
    Device("26B + 2B, GPU", 0.28, 0.24, 0.06, 0.015, 3328, 70, range(8, 57), 8192, 32),
    Device("signs-26b", 0.28, 0.31, 0.07, 0.02, 170, 40, (3, 4, 5), 2048, 16),
)
#: Seconds between an engine's output and what it leads to: another process's turn.
_HOP = 0.002


@dataclass
class Prompt:
    """One request in one engine. before: tokens before the image. left: the image's in the prompt. encoded:
    its visual tokens that are encoded. charged: what a step's encoder budget pays for it."""

    before: int
    left: int
    after: int
    encoded: int
    charged: int
    answer: int
    first: Callable[[], None]
    end: Callable[[], None]
    done: int = 0
    made: int = 0
    seen: bool = False

    @property
    def length(self) -> int:
        return self.before + self.left + self.after


@dataclass
class Engine:
    """seconds: of a step, by its tokens and by the visual tokens that it encodes."""

    budget: int
    encoder: int
    sequences: int
    seconds: Callable[[int, int], float]
    waiting: list[Prompt] = field(default_factory=list)
    running: list[Prompt] = field(default_factory=list)
    step: list[tuple[Prompt, int]] = field(default_factory=list)
    left: float = 0.0

    def begin(self) -> None:
        """The next step, where there is work and none runs."""
        if self.step or not (self.waiting or self.running):
            return
        tokens, encoder, encoded = self.budget, self.encoder, 0
        for prompt in [*self.running, *self.waiting]:
            new = prompt.done == 0 and prompt not in self.running
            if tokens <= 0 or (new and len(self.running) >= self.sequences):
                break
            some = min(prompt.length - prompt.done, tokens) if prompt.made == 0 else 1
            if not prompt.seen and prompt.done + some > prompt.before:
                if prompt.charged <= encoder:
                    encoder, encoded, prompt.seen = encoder - prompt.charged, encoded + prompt.encoded, True
                else:
                    some = prompt.before - prompt.done
            if some <= 0:
                if new:
                    break
                continue
            if new:
                self.waiting.remove(prompt)
                self.running.append(prompt)
            tokens -= some
            self.step.append((prompt, some))
        self.left = self.seconds(self.budget - tokens, encoded)

    def finish(self) -> None:
        step, self.step = self.step, []
        for prompt, some in step:
            prompt.done += some
            if prompt.done < prompt.length:
                continue
            prompt.made += 1
            if prompt.made == 1:
                prompt.first()
            if prompt.made == prompt.answer:
                self.running.remove(prompt)
                prompt.end()


@dataclass(frozen=True)
class Way:
    """How a server answers. kept, opened: shares of visual tokens that are left and that are encoded; charge:
    whether the encoder's budget counts the latter. at_once: requests that the guide is given at a time."""

    guided: bool = False
    kept: float = 1.0
    opened: float = 1.0
    charge: bool = True
    at_once: int = 1 << 20


@dataclass(frozen=True)
class Found:
    throughput: float
    first_token: float


class Simulation:
    """One server under closed-loop clients until so many requests are answered."""

    def __init__(self, device: Device, way: Way, clients: int, requests: int) -> None:
        self._device, self._way, self._clients, self._requests = device, way, clients, requests
        self._drawn = random.Random(0)
        self._now, self._order = 0.0, count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._queue: list[Callable[[], None]] = []
        self._looking = self._asked = self._answered = 0
        self.waits: list[float] = []
        whole = device.visual + device.text

        def engine(language: float, vision: float) -> Engine:
            def seconds(tokens: int, encoded: int) -> float:
                return device.step + language * tokens / whole + vision * encoded / device.visual

            return Engine(device.budget, max(device.budget, device.visual), device.sequences, seconds)

        self._large = engine(device.language, device.vision)
        self._small = engine(device.guide, 0.0)

    def run(self) -> Found:
        for number in range(self._clients):
            self._at(0.001 * number, self._ask)
        while self._answered < self._requests:
            self._advance()
        return Found(self._requests / self._now, median(self.waits))

    def _advance(self) -> None:
        engines = (self._large, self._small)
        for engine in engines:
            engine.begin()
        busy = [engine for engine in engines if engine.step]
        ends = [self._now + engine.left * len(busy) for engine in busy]
        then = min([*ends, *(time for time, *_ in self._events[:1])])
        for engine in busy:
            engine.left -= (then - self._now) / len(busy)
        self._now = then
        for engine in busy:
            if engine.left <= 1e-9:
                engine.finish()
        while self._events and self._events[0][0] <= self._now + 1e-9:
            heapq.heappop(self._events)[-1]()

    def _at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), what))

    def _ask(self) -> None:
        if self._asked == self._requests:
            return
        self._asked += 1
        began, answer = self._now, self._drawn.choice(self._device.answers)
        if not self._way.guided:
            self._generate(began, answer)
            return
        self._queue.append(lambda: self._look(began, answer))
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._looking < self._way.at_once:
            self._looking += 1
            self._queue.pop(0)()

    def _look(self, began: float, answer: int) -> None:
        def seen() -> None:
            self._looking -= 1
            self._admit()
            self._at(self._now + _HOP, lambda: self._generate(began, answer))

        self._small.waiting.append(self._prompt(1.0, 1.0, True, 1, lambda: None, seen))

    def _generate(self, began: float, answer: int) -> None:
        def end() -> None:
            self._answered += 1
            self._at(self._now + _HOP, self._ask)

        way = self._way
        self._large.waiting.append(
            self._prompt(
                way.kept, way.opened, way.charge, answer, lambda: self.waits.append(self._now - began), end
            )
        )

    def _prompt(
        self, kept: float, opened: float, charge: bool, answer: int, first: Callable[[], None],
        end: Callable[[], None],
    ) -> Prompt:  # fmt: skip
        visual, text = self._device.visual, self._device.text
        left, encoded = int(kept * visual), int(opened * visual)
        charged = max(left, encoded) if charge else left
        return Prompt(text // 4, left, text - text // 4, encoded, charged, answer, first, end)


#: Shares kept, and of tiles that are encoded then, by the plain ranking and by `tiles` (docs/performance.md).
_SHARES = ((0.35, 0.81), (0.35, 0.53), (0.18, 0.63), (0.18, 0.44), (0.09, 0.45))
_CLIENTS, _REQUESTS = (1, 4, 16, 32), 400


def rows(devices: Sequence[Device] = DEVICES, requests: int = _REQUESTS) -> Iterator[dict[str, Any]]:
    """Throughput and median time to the first token, relative to plain vLLM; above 1 is better."""
    for device in devices:
        for clients in _CLIENTS:
            plain = Simulation(device, Way(), clients, requests).run()
            for kept, opened in _SHARES:
                ways = {
                    "kept": Way(True, kept, opened, charge=False),
                    "encoded": Way(True, kept, opened),
                    "guide 1": Way(True, kept, opened, at_once=1),
                }
                found = {name: Simulation(device, way, clients, requests).run() for name, way in ways.items()}
                yield {
                    "device": device.name,
                    "clients": clients,
                    "kept": kept,
                    "encoded": opened,
                    "plain, s": plain.first_token,
                    **{f"first token, {k}": plain.first_token / one.first_token for k, one in found.items()},
                    **{f"requests/s, {k}": one.throughput / plain.throughput for k, one in found.items()},
                }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_token", description="What queues where before a first token."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, too")
    options = parser.parse_args(arguments)
    found = list(rows())
    report.print_table(found)
    if options.json is not None:
        about = {"versions": report.versions(), "commit": report.commit(), "benchmark": "first_token"}
        report.write_json(options.json, about, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
