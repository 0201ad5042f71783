"""Measuring what guidance costs and saves, once, before the first request.

What follows from it is in :mod:`vllm_sgl.decide.break_even`.
"""

import logging
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from vllm import SamplingParams

from vllm_sgl.config import SGLConfig
from vllm_sgl.core import GuideRequest
from vllm_sgl.decide.break_even import TYPICAL_ANSWER, Costs
from vllm_sgl.engine.facts import FactsReader
from vllm_sgl.errors import Unguidable
from vllm_sgl.guide.base import Guide
from vllm_sgl.host import probe

logger = logging.getLogger("vllm.vllm_sgl.costs")

#: Each pass is run so often; the quickest counts, because whatever else the machine does only adds.
REPEATS = 3
#: Width and height. One tile, and several where the model cuts images into tiles.
IMAGES = ((224, 224), (1792, 448))
#: Lengths of the large model's prompts, as far as its context goes.
LENGTHS = (32, 128, 512, 2048, 8192)

#: Beyond a prompt that takes so long, prefill counts as straight: a server should start soon.
LONG_SECONDS = 0.5

#: ``AsyncLLM.generate``
Generate = Callable[[Any, SamplingParams, str], AsyncGenerator[Any, None]]


async def measure(
    engine: Any, generate: Generate, guide: Guide, reader: FactsReader, config: SGLConfig
) -> Costs | None:
    """Run both models on prompts of several lengths. Nothing else may run meanwhile.

    Args:
        engine: the large engine, an ``AsyncLLM``; renders prompts.
        generate: its unguided ``generate``.
        reader: of the large model's requests.

    Returns:
        None where no request can be guided: images are not allowed, or one tile does not fit the small
        model's context.

    Raises:
        GuideError: when the guide fails.
    """
    if not probe.takes_images(engine):
        return None
    started = time.monotonic()
    small = await _guide_seconds(engine, guide, reader, config)
    if not small:
        return None
    few, first, decode = small[0]
    many, last, _ = small[-1]
    each = max(0.0, (last - first) / (many - few)) if many > few else 0.0
    context = engine.model_config.max_model_len
    prefill: list[tuple[int, float]] = []
    for tokens in sorted({min(length, context - 1) for length in LENGTHS}):
        prefill.append((tokens, await _prefill_seconds(engine, generate, tokens)))
        if len(prefill) > 1 and prefill[-1][1] > LONG_SECONDS:
            break
    costs = Costs(guide=(first - each * few, each), decode=decode, prefill=tuple(prefill))
    logger.info("SGL: %s; measured in %.1f s", _summary(costs, config, context), time.monotonic() - started)
    return costs


async def _guide_seconds(
    engine: Any, guide: Guide, reader: FactsReader, config: SGLConfig
) -> list[tuple[int, float, float]]:
    """(visual tokens, seconds up to the first token, seconds per further token) of images, ascending."""
    found: dict[int, tuple[float, float]] = {}
    seed = 0
    for size in IMAGES:
        once: list[float] = []
        often: list[float] = []
        for _ in range(REPEATS):
            for seconds, tokens in ((once, 1), (often, TYPICAL_ANSWER)):
                seed += 1
                prompt = await probe.image_prompt(engine, probe.noise(*size, seed))
                items = reader.items(prompt)
                if len(prompt["prompt_token_ids"]) + TYPICAL_ANSWER + 1 > guide.context:
                    return _ascending(found)
                params = SamplingParams(ignore_eos=True)
                request = GuideRequest(
                    f"calibration-{seed}", prompt, items, params, tokens, config.query_rows
                )
                began = time.perf_counter()
                try:
                    await guide.look(request, tokens)
                except Unguidable:
                    return _ascending(found)
                seconds.append(time.perf_counter() - began)
        decode = max(0.0, min(often) - min(once)) / (TYPICAL_ANSWER - 1)
        found[sum(item.visual_tokens for item in items)] = (min(once), decode)
    return _ascending(found)


def _ascending(found: dict[int, tuple[float, float]]) -> list[tuple[int, float, float]]:
    return [(tokens, *seconds) for tokens, seconds in sorted(found.items())]


async def _prefill_seconds(engine: Any, generate: Generate, tokens: int) -> float:
    """Seconds of the large engine from a prompt of so many tokens to the first new one."""
    params = SamplingParams(temperature=0, max_tokens=1, skip_reading_prefix_cache=True, detokenize=False)
    seconds = []
    for number in range(REPEATS):
        began = time.perf_counter()
        prompt = probe.text_prompt(engine, tokens)
        async for _ in generate(prompt, params, f"sgl-calibration-{tokens}-{number}"):
            pass
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _summary(costs: Costs, config: SGLConfig, context: int) -> str:
    exits = config.exit_threshold is not None
    fewest = costs.break_even(config.retention, exits, config.guide_tokens, context - 1)
    about = f"retention {config.retention:g}" + (" and early exit" if exits else "")
    base, each = costs.guide
    cost = f"a guide pass takes {1000 * base:.0f} ms and {1e6 * each:.0f} ms per 1,000 visual tokens"
    if fewest is None:
        return (
            f"{cost}: more than pruning saves the large model at {about}, so it is left alone "
            "(--sgl-break-even off guides every request)"
        )
    return f"{cost}; at {about} that pays from {fewest} visual tokens, and requests with fewer are not guided"
