"""Component times, measured on plain servers of the two models while nothing else runs.

What bounds a load must be measured under that load: prompts share the steps of an engine, and the tokens of
an answer ride in the steps of other requests' prompts. So, for each number of clients:

* **L(n)**: as many clients ask for as many answers as in the load itself, about prompts of n random token
  ids; no vision encoder runs, and no cache knows them. Seconds from first to last, by request. n is the
  length of an image request's prompt, less its visual tokens, plus those that are kept; the answer is as long
  as a right one.
* **C**: the same with log-probabilities of the prompt, for the small model's consistency prompt: text, answer
  and 5 % of the visual tokens; one token is generated.
* **V**: of one image request at a time, whose tiles are a batch already: the engine's own
  ``vllm:request_prefill_time_seconds`` (first scheduled to first token) of the image request, less that of a
  text prompt of as many tokens; not below 0. Under load a batch of images costs less per image: where the
  model alone was loaded with images, V is the rest of that load (`figures.under_load`), and the handling of
  an image by the server's process is in it.

More clients than an engine has sequences are no more than its sequences to it. Each figure is a median over
repeats, one before the loads, and, where the servers are up together, one after each round. L and C have the
HTTP of a text prompt in them, and the small model's V that of an image, a few milliseconds each: the ideal is
that much too low.
"""

import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean, median
from typing import Any

from benchmarks.support.load import body
from benchmarks.support.server import Scrape, Server
from benchmarks.support.workspace import BenchmarkError
from vllm_sgl.prune.base import kept_count

from .cost import PartTimes
from .presets import Preset
from .sources import Request

#: Share of visual tokens in the consistency pass: the default of `--sgl-consistency-retention`.
CONSISTENCY_RETENTION = 0.05
_PREFILL = "vllm:request_prefill_time_seconds"
#: Ids below are single bytes in the tokenizers of all presets: text, and never special.
_TEXT_IDS = 256
_COUNTED_SECONDS = 10
_DRAWN = random.Random(0)


class Samples:
    """Seconds of one model's parts, one per repeat.

    vision: of one request. language: by number of clients and retention. consistency: by number of clients;
    none for a large model.
    """

    def __init__(self) -> None:
        self.vision: list[float] = []
        self.language: defaultdict[tuple[int, float], list[float]] = defaultdict(list)
        self.consistency: defaultdict[int, list[float]] = defaultdict(list)

    def measure(self, server: Server, preset: Preset, small: bool) -> None:
        """Add a repeat. small: whether it is the small model, which is never given a pruned prompt.

        Raises:
            BenchmarkError: where a request is refused, or the server's metrics do not count it.
        """
        asked = preset.asked.aside(1 + max(preset.repeats, *preset.batches.values()))
        text = self._vision(server, preset, asked)
        if small:  # vLLM compiles this code on first use
            server.post("/v1/completions", _prompt(text, 1, prompt_logprobs=0))
        for clients, requests in preset.batches.items():
            for share in (1.0,) if small else preset.shares:
                prompts = [
                    _prompt(text + kept_count(share, one.visual_tokens), one.answer_tokens)
                    for one in asked[:requests]
                ]
                self.language[clients, share].append(_seconds(server, prompts, clients) / requests)
            if small:
                shown = [
                    text + kept_count(CONSISTENCY_RETENTION, one.visual_tokens) + one.answer_tokens
                    for one in asked[:requests]
                ]
                prompts = [_prompt(tokens, 1, prompt_logprobs=0) for tokens in shown]
                self.consistency[clients].append(_seconds(server, prompts, clients) / requests)

    def _vision(self, server: Server, preset: Preset, asked: Sequence[Request]) -> int:
        """Measure the encoder on the first images; a prompt's tokens that are not visual."""
        images = [body(one.content, 1) for one in asked[: preset.repeats + 1]]
        usage = server.post("/v1/chat/completions", images[0])["usage"]
        text = usage["prompt_tokens"] - asked[0].visual_tokens
        mean = fmean(one.visual_tokens for one in asked)
        for image, one in zip(images[1:], asked[1:], strict=False):
            seen = _prefill(server, "/v1/chat/completions", image)
            alone = _prefill(server, "/v1/completions", _prompt(text + one.visual_tokens, 1))
            self.vision.append((seen - alone) * mean / one.visual_tokens)  # as of an image of mean size
        return text


def part_times(small: Samples, large: Samples, clients: int) -> PartTimes:
    """Medians. clients: one of ``Preset.batches``."""
    return PartTimes(
        small_vision=max(0.0, median(small.vision)),
        small_language=median(small.language[clients, 1.0]),
        consistency=median(small.consistency[clients]),
        large_vision=max(0.0, median(large.vision)),
        large_language={
            share: median(seconds) for (count, share), seconds in large.language.items() if count == clients
        },
    )


def _prompt(tokens: int, answer_tokens: int, **options: Any) -> bytes:
    """A request about random token ids, never the same twice."""
    prompt = _DRAWN.choices(range(_TEXT_IDS), k=tokens)
    made = {"model": "model", "prompt": prompt, "max_tokens": answer_tokens, "ignore_eos": True, **options}
    return json.dumps(made).encode()


def _seconds(server: Server, requests: list[bytes], clients: int) -> float:
    """From the first request to the last answer."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda body: server.post("/v1/completions", body), requests))
    return time.perf_counter() - began


def _prefill(server: Server, path: str, body: bytes) -> float:
    """Prefill seconds of one request on an idle server."""
    before = server.metrics()
    server.post(path, body)
    return _counted(server, before).since(before, f"{_PREFILL}_sum")


def _counted(server: Server, before: Scrape) -> Scrape:
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
