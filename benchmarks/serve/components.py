"""Component times, measured on unloaded plain servers of the two models.

Times are the engine's own: `vllm:request_prefill_time_seconds` (first scheduled to first token) and
`vllm:request_decode_time_seconds` (first to last token) of one request at a time, so neither HTTP nor image
processing is in them. Each figure is a median over the repeats, some of them before the loads, and, where the
servers are up together, some after each round.

* **P(n)**: a prompt of n random token ids; no vision encoder runs, and no cache knows it. n is the length of
  the image request's prompt, less its visual tokens, plus those that are kept.
* **V**: the prefill time of an image request less P of as many tokens; not below 0.
* **D**: the decode time of the image request. After pruning it is taken to be the same, as in the cost model.
* **C**: P, with log-probabilities of the prompt, of the small model's consistency prompt: text, answer and
  5 % of the visual tokens.
"""

import json
import random
import time
from collections import defaultdict
from statistics import median
from typing import Any

from benchmarks.serving.load import bodies
from benchmarks.serving.server import Metrics, Server
from benchmarks.serving.session import BenchmarkError

from .cost import Costs, kept
from .presets import Preset

#: Share of visual tokens in the consistency pass: the default of `--sgl-consistency-retention`.
CONSISTENCY_RETENTION = 0.05
_PREFILL, _DECODE = "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds"
#: Ids below are single bytes in the tokenizers of all presets: text, and never special.
_TEXT_IDS = 256
_COUNTED_SECONDS = 10


class Samples:
    """Seconds of one model's parts, one per repeat.

    seen: prefill of the image request. prefill: by retention. consistency: as if it were the small model.
    """

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.decode: list[float] = []
        self.consistency: list[float] = []
        self.prefill: defaultdict[float, list[float]] = defaultdict(list)

    def measure(self, server: Server, preset: Preset, seed: int) -> None:
        """Add repeats. seed: as many pictures and one more, from this number on, are its own.

        Raises:
            BenchmarkError: where a request is refused, or the server's metrics do not count it.
        """
        pair, drawn = preset.pair, random.Random(seed)
        images = bodies(range(seed, seed + preset.repeats + 1), pair.image, preset.max_tokens)
        length = server.post("/v1/chat/completions", images[0])["usage"]["prompt_tokens"]
        text = length - pair.visual_tokens
        shown = text + kept(CONSISTENCY_RETENTION, pair.visual_tokens) + preset.max_tokens
        _text(server, drawn, shown, prompt_logprobs=0)  # vLLM compiles this code on first use
        for image in images[1:]:
            seen, decode = _time(server, "/v1/chat/completions", image)
            self.seen.append(seen)
            self.decode.append(decode)
            for share in {1.0, *preset.retentions}:
                tokens = text + kept(share, pair.visual_tokens)
                self.prefill[share].append(_text(server, drawn, tokens))
            self.consistency.append(_text(server, drawn, shown, prompt_logprobs=0))


def costs(small: Samples, large: Samples) -> Costs:
    """Medians."""
    return Costs(
        small_vision=_vision(small),
        small_prefill=median(small.prefill[1.0]),
        small_decode=median(small.decode),
        consistency=median(small.consistency),
        large_vision=_vision(large),
        large_prefill={share: median(seconds) for share, seconds in large.prefill.items()},
        large_decode=median(large.decode),
    )


def _vision(samples: Samples) -> float:
    return max(0.0, median(samples.seen) - median(samples.prefill[1.0]))


def _text(server: Server, drawn: random.Random, tokens: int, **options: Any) -> float:
    """Prefill seconds of a prompt of random token ids."""
    body = {"model": "model", "prompt": drawn.choices(range(_TEXT_IDS), k=tokens), "max_tokens": 1, **options}
    return _time(server, "/v1/completions", json.dumps(body).encode())[0]


def _time(server: Server, path: str, body: bytes) -> tuple[float, float]:
    """Prefill and decode seconds of one request on an idle server."""
    before = server.metrics()
    server.post(path, body)
    after = _counted(server, before)
    return after.since(before, f"{_PREFILL}_sum"), after.since(before, f"{_DECODE}_sum")


def _counted(server: Server, before: Metrics) -> Metrics:
    """The first scrape that has one request more."""
    end = time.monotonic() + _COUNTED_SECONDS
    while True:
        after = server.metrics()
        found = after.since(before, f"{_PREFILL}_count")
        if found == 1:
            return after
        if found > 1 or time.monotonic() > end:
            raise BenchmarkError(f"{_PREFILL} counts {found:g} requests where one was sent")
        time.sleep(0.01)
