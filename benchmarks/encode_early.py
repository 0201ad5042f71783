"""Would it pay to encode an image for the large model while the guide still looks at it?

    python -m benchmarks.encode_early [--requests N] [--rounds N] [--out FILE]

SGL looks first and encodes then, only tiles of which something is kept. Here both orders run on the same two
engines, on the sign readers in the proportions of a 26B with a 2B. **Early** gives the large engine, together
with the guide's pass, a prompt of one visual token of every tile, after which all features are in its cache;
the pruned prompt finds them there. Every request is about new noise, and ends with its first token; orders
take turns. Figures are medians over rounds: early's time and throughput over those of the usual order.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from statistics import fmean, median
from typing import Any

from vllm import AsyncEngineArgs, SamplingParams

from benchmarks import report
from benchmarks.accuracy import command_line
from benchmarks.serving.pair import Pair, signs
from vllm_sgl.config import SGLConfig
from vllm_sgl.core import GuideRequest, Kept, Seen, VisualItem
from vllm_sgl.engine.client import SGLAsyncLLM
from vllm_sgl.engine.facts import FactsReader
from vllm_sgl.engine.large import use_sgl
from vllm_sgl.families import family_of, tiles_of
from vllm_sgl.host import probe
from vllm_sgl.host.async_llm import AsyncLLM
from vllm_sgl.prune.base import policy
from vllm_sgl.prune.rewrite import prune_prompt

#: Retention and policy: nearly everything, the plain ranking, few tiles. The last image has one tile.
_CASES = ((0.9, "top", None), (0.35, "top", None), (0.35, "tiles", None), (0.9, "top", (112, 112)))
_CLIENTS = (1, 4)


class Orders:
    """Both orders of work over one pair of engines."""

    def __init__(self, engine: SGLAsyncLLM, pair: Pair) -> None:
        self._engine, self._size = engine, pair.image
        model = engine.model_config
        self._reader, self._tiles = FactsReader.of(family_of(model), model), tiles_of(model)
        self._numbers = count()
        self.opened: list[float] = []

    async def first_token(self, case: tuple[float, str, tuple[int, int] | None], early: bool) -> float:
        """Seconds from a rendered prompt to the large model's first token."""
        retention, name, size = case
        number = next(self._numbers)
        prompt = await probe.image_prompt(self._engine, probe.noise(*(size or self._size), number))
        items = self._reader.items(prompt)
        request = GuideRequest(f"look-{number}", prompt, items, SamplingParams(), 1, "prompt")
        began = time.perf_counter()
        encoding = asyncio.create_task(self._large(prompt, _one_of_each(items), number)) if early else None
        result = await self._engine._guide.look(request, 1)
        kept = policy(name).select([Seen(items[0], result.importance[0])], retention)
        self.opened.append(len(items[0].open_tiles(kept[0])) / items[0].tiles)
        await self._large(prompt, kept, next(self._numbers))
        seconds = time.perf_counter() - began
        if encoding is not None:
            await encoding
        return seconds

    async def _large(self, prompt: Any, kept: Kept, number: int) -> None:
        pruned = prune_prompt(prompt, kept, self._tiles)
        params = SamplingParams(temperature=0, max_tokens=1, detokenize=False)
        async for _ in AsyncLLM.generate(self._engine, pruned, params, f"large-{number}"):
            pass

    async def load(
        self, case: tuple[float, str, tuple[int, int] | None], early: bool, requests: int, clients: int
    ) -> tuple[float, float]:
        """Median seconds to the first token and requests per second of closed-loop clients."""
        left, seconds = iter(range(requests)), []

        async def client() -> None:
            for _ in left:
                seconds.append(await self.first_token(case, early))

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return median(seconds), requests / (time.perf_counter() - began)


def _one_of_each(items: Sequence[VisualItem]) -> Kept:
    """The first visual token of every tile."""
    import torch

    return [torch.arange(0, item.visual_tokens, item.per_tile) for item in items]


async def _measure(folder: Path, pair: Pair, requests: int, rounds: int) -> list[dict[str, Any]]:
    arguments = AsyncEngineArgs(
        str(folder / pair.large.name), trust_remote_code=True, dtype=pair.dtype, enforce_eager=True,
        max_model_len=pair.max_model_len, max_num_seqs=pair.max_num_seqs, limit_mm_per_prompt={"image": 1},
        kv_cache_memory_bytes=pair.large_kv, max_num_batched_tokens=2048,
    )  # fmt: skip
    config = SGLConfig(
        small=str(folder / pair.small.name), break_even="off",
        small_args={"kv_cache_memory_bytes": pair.small_kv},
    )  # fmt: skip
    use_sgl(arguments, config)
    engine: SGLAsyncLLM = SGLAsyncLLM.from_vllm_config(arguments.create_engine_config())
    try:
        await engine.get_supported_tasks()  # which starts the guide
        orders = Orders(engine, pair)
        for early in (False, True):
            await orders.load(_CASES[0], early, 4, 4)
        return [
            await _row(orders, case, clients, requests, rounds) for case in _CASES for clients in _CLIENTS
        ]
    finally:
        engine.shutdown()


async def _row(
    orders: Orders, case: tuple[float, str, tuple[int, int] | None], clients: int, requests: int, rounds: int
) -> dict[str, Any]:
    times, rates, usual = [], [], []
    orders.opened = []
    for number in range(rounds):
        found = {}
        for early in (False, True) if number % 2 else (True, False):
            found[early] = await orders.load(case, early, requests, clients)
        times.append(found[True][0] / found[False][0])
        rates.append(found[True][1] / found[False][1])
        usual.append(found[False][0])
    return {
        "kept": case[0],
        "policy": case[1],
        "image": "one tile" if case[2] else "13 tiles",
        "clients": clients,
        "tiles needed": fmean(orders.opened),
        "first token, s": median(usual),
        "first token, early": median(times),
        "requests/s, early": median(rates),
        "by round": [[round(time, 3), round(rate, 3)] for time, rate in zip(times, rates, strict=True)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    about, pair = report.environment(), signs("26B+2B", gflop=14)
    report.print_environment(about)
    with tempfile.TemporaryDirectory(prefix="encode-early-") as temporary:
        pair.write(Path(temporary))
        rows = asyncio.run(_measure(Path(temporary), pair, options.requests, options.rounds))
    report.print_table({key: value for key, value in row.items() if key != "by round"} for row in rows)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        values = {**about, "benchmark": "encode_early", "requests": options.requests}
        report.write_json(options.out, values, rows)
        report.progress(f"written: {options.out}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encode_early",
        description="Whether encoding while the guide looks would pay.",
    )
    add = parser.add_argument
    add("--requests", type=command_line.count, default=8, metavar="N", help="of one load (default: 8)")
    add("--rounds", type=command_line.count, default=5, metavar="N", help="how often (default: 5)")
    add("--out", type=Path, metavar="FILE", help="where the JSON goes (default: nowhere)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
