"""Measuring what guidance costs and saves, once, before the first request.

What follows from it is in :mod:`vllm_sgl.decide.costs`.
"""

import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vllm import SamplingParams

from vllm_sgl.config import SGLConfig
from vllm_sgl.core import Facts, GuideRequest
from vllm_sgl.decide.costs import TYPICAL_ANSWER, Costs
from vllm_sgl.decide.early_exit import answer_tokens
from vllm_sgl.engine.known_costs import KnownCosts
from vllm_sgl.errors import Unguidable
from vllm_sgl.guide.base import Guide
from vllm_sgl.host.render import dummy_prompts
from vllm_sgl.prune.auto import AUTO
from vllm_sgl.request.facts import FactsReader

logger = logging.getLogger("vllm.vllm_sgl.costs")

#: In a round each pass is run once; the quickest of all rounds counts, because whatever else the machine does
#: only adds. Measure until this many rounds in a row agree within a tenth; ROUNDS at most.
ALIKE = 3
ROUNDS = 5
#: Widths and heights to choose two images from that have different numbers of visual tokens.
IMAGES = ((112, 112), (224, 224), (448, 448), (896, 448), (1344, 896), (1792, 448), (1792, 1344))
#: If every size yields the same token count, compare one image with this many.
SEVERAL = 4
#: Lengths of the large model's prompts, as far as its context goes.
LENGTHS = (32, 128, 512, 2048, 8192)

#: Beyond a prompt that takes so long, prefill counts as straight: a server should start soon.
LONG_SECONDS = 0.5

#: Widths and heights of the images in a prompt.
Sizes = tuple[tuple[int, int], ...]

#: ``AsyncLLM.generate``
Generate = Callable[[Any, SamplingParams, str], AsyncGenerator[Any, None]]


async def known_or_measured(
    engine: Any, generate: Generate, guide: Guide, reader: FactsReader, config: SGLConfig, known: KnownCosts
) -> Costs | None:
    """Costs as an earlier start measured them, unless the user wants them measured; arguments, result and
    errors as those of :func:`measure`."""
    if config.break_even != "measure" and (found := known.read()) is not None:
        costs, measured = found
        verdict = _verdict(costs, config, engine.model_config.max_model_len)
        logger.info(
            "SGL: %s; as measured on %s for this pair, configuration and machine (%s; --sgl-break-even "
            "measure measures again)", _summary(costs, config, verdict), measured, known.path,
        )  # fmt: skip
        return costs
    return await measure(engine, generate, guide, reader, config, known.keep)


async def measure(
    engine: Any,
    generate: Generate,
    guide: Guide,
    reader: FactsReader,
    config: SGLConfig,
    keep: Callable[[Costs], str] = lambda costs: "not kept",
) -> Costs | None:
    """Run both models on prompts of several lengths. Nothing else may run meanwhile.

    Args:
        engine: the large engine, an ``AsyncLLM``; renders prompts.
        generate: its unguided ``generate``.
        reader: of the large model's requests.
        keep: is given costs of which another start would measure the same; says what became of them.

    Returns:
        None where no request can be guided: images are not allowed, or one tile does not fit the small
        model's context.

    Raises:
        GuideError: when the guide fails.
    """
    limit = dummy_prompts.most_images(engine)
    if limit == 0:
        return None
    started = time.monotonic()
    passes = _Passes(engine, generate, guide, reader, config)
    images = await _two_prompts(passes, min(limit, SEVERAL))
    if images is None:
        return None
    verdicts: list[int | None] = []
    while len(verdicts) < ROUNDS and not _settled(verdicts):
        for sizes in images:
            await passes.guide(sizes)
        await passes.prefill()
        if AUTO in config.policies.values():
            for sizes in images:
                await passes.vision(sizes)
        verdicts.append(_verdict(passes.costs(), config, engine.model_config.max_model_len))
    costs = passes.costs()
    logger.info(
        "SGL: %s; measured with images of %s visual tokens, %d rounds in %.1f s%s",
        _summary(costs, config, verdicts[-1]), " and ".join(map(str, passes.sizes)), len(verdicts),
        time.monotonic() - started, ", " + keep(costs) if _settled(verdicts) else _UNSETTLED,
    )  # fmt: skip
    return costs


_UNSETTLED = (
    ", and the last ones still differed, so nothing is kept: another start may come to another verdict, as "
    "on a machine that is busy with something else"
)


def _settled(verdicts: Sequence[int | None]) -> bool:
    latest = verdicts[-ALIKE:]
    found = [verdict for verdict in latest if verdict is not None]
    if len(latest) < ALIKE or len(found) not in (0, ALIKE):
        return False
    return not found or max(found) - min(found) <= 0.1 * max(found)


async def _two_prompts(passes: "_Passes", several: int) -> list[Sizes] | None:
    """The images of the prompt with the fewest and of the one with the most visual tokens that the guide can
    take, one prompt where they are equally many; None where it can take none. The guide's own count, then the
    large model's.

    several: the most images in one prompt.
    """
    found: dict[tuple[int, int], Sizes] = {}
    for size in IMAGES:
        found.setdefault(await passes.counts((size,)), (size,))
    if several > 1 and len({seen for seen, _ in found}) == 1:
        sizes = found[min(found)] * several
        found[await passes.counts(sizes)] = sizes
    most = None
    for count in sorted(found, reverse=True):
        if await passes.takes(found[count]):
            most = found[count]
            break
    if most is None:
        return None
    fewest = found[min(found)]  # what fits with more, fits
    return [fewest] if fewest == most else [fewest, most]


class _Passes:
    """Both models' passes, and the quickest seconds of each so far."""

    def __init__(
        self, engine: Any, generate: Generate, guide: Guide, reader: FactsReader, config: SGLConfig
    ) -> None:
        self._engine, self._generate = engine, generate
        self._guide, self._reader, self._config = guide, reader, config
        self._images: dict[int, dict[int, float]] = {}  # guide's visual tokens -> answer tokens -> seconds
        self._seen: dict[int, int] = {}  # visual tokens of an image -> the guide's, at most
        self._prefill: dict[int, float] = {}  # prompt tokens -> seconds
        self._whole: dict[int, tuple[float, int]] = {}  # visual tokens -> seconds, prompt tokens
        self._number = 0

    @property
    def sizes(self) -> list[int]:
        """Visual tokens of the images that were looked at, as the guide's model has them; ascending."""
        return sorted(self._images)

    async def counts(self, sizes: Sizes) -> tuple[int, int]:
        """Visual tokens of images of these widths and heights: the guide's, and the large model's."""
        request = await self._request(sizes, 1)
        seen, visual = self._guide.sees(request), sum(request.visual_tokens)
        if len(sizes) == 1:
            self._seen[visual] = max(seen, self._seen.get(visual, 0))  # shapes differ; the costly one counts
        return seen, visual

    async def takes(self, sizes: Sizes) -> bool:
        """Whether the guide can look at images of these widths and heights, and answer, and the large model
        too."""
        request = await self._request(sizes, TYPICAL_ANSWER)
        context = min(self._guide.context, self._engine.model_config.max_model_len)
        if len(request.prompt["prompt_token_ids"]) + TYPICAL_ANSWER + 1 > context:
            return False
        try:
            await self._guide.look(request, 1)
        except Unguidable:
            return False
        return True

    async def guide(self, sizes: Sizes) -> None:
        """Look at new images of these widths and heights, with short and with typical answers."""
        for tokens in (1, TYPICAL_ANSWER):
            request = await self._request(sizes, tokens)
            began = time.perf_counter()
            await self._guide.look(request, tokens)
            quickest = self._images.setdefault(self._guide.sees(request), {})
            quickest[tokens] = min(quickest.get(tokens, math.inf), time.perf_counter() - began)

    async def _request(self, sizes: Sizes, tokens: int) -> GuideRequest:
        self._number += 1
        images = [dummy_prompts.noise(*size, (self._number, place)) for place, size in enumerate(sizes)]
        prompt = await dummy_prompts.image_prompt(self._engine, images)
        return GuideRequest(
            f"calibration-{self._number}", prompt, self._reader.items(prompt),
            SamplingParams(ignore_eos=True), tokens, self._config.query_rows,
        )  # fmt: skip

    async def prefill(self) -> None:
        """The large model's, from prompts of several lengths to the first new token."""
        longest = self._engine.model_config.max_model_len - 1
        for number, tokens in enumerate(sorted({min(length, longest) for length in LENGTHS})):
            prompt = dummy_prompts.text_prompt(self._engine, tokens)
            quickest = self._prefill.get(tokens, math.inf)
            self._prefill[tokens] = min(quickest, await self._large(prompt))
            if number and self._prefill[tokens] > LONG_SECONDS:
                break

    async def vision(self, sizes: Sizes) -> None:
        """The large model's vision encoder and prefill, on new images of these widths and heights."""
        request = await self._request(sizes, 1)
        visual, tokens = sum(request.visual_tokens), len(request.prompt["prompt_token_ids"])
        quickest, _ = self._whole.get(visual, (math.inf, 0))
        self._whole[visual] = min(quickest, await self._large(request.prompt)), tokens

    async def _large(self, prompt: Any) -> float:
        """Seconds of the large engine to the first new token."""
        params = SamplingParams(temperature=0, max_tokens=1, skip_reading_prefix_cache=True, detokenize=False)
        self._number += 1
        began = time.perf_counter()
        async for _ in self._generate(prompt, params, f"sgl-calibration-{self._number}"):
            pass
        return time.perf_counter() - began

    def costs(self) -> Costs:
        few, many = self.sizes[0], self.sizes[-1]
        first, last = self._images[few], self._images[many]
        each = max(0.0, last[1] - first[1]) / (many - few) if many > few else 0.0
        base = first[1] - each * few
        if base < 0:  # more than proportional; a line from zero is below neither pass
            base, each = 0.0, last[1] / many
        decode = max(0.0, first[TYPICAL_ANSWER] - first[1]) / (TYPICAL_ANSWER - 1)
        differ = any(visual != seen for visual, seen in self._seen.items())
        costs = Costs(
            (base, each), decode, tuple(sorted(self._prefill.items())),
            seen=tuple(sorted(self._seen.items())) if differ else (),
        )  # fmt: skip
        return replace(costs, vision=vision_seconds(costs, self._whole))


def vision_seconds(costs: Costs, whole: Mapping[int, tuple[float, int]]) -> float:
    """Seconds of the large model's vision encoder per visual token: by how much passes over images exceed the
    prefill of equally long prompts, as far as that grows with the image.

    Args:
        whole: visual tokens -> seconds and prompt tokens of an image's pass; may be empty.
    """
    beyond = [
        (visual, seconds - costs.large_prefill(tokens)) for visual, (seconds, tokens) in sorted(whole.items())
    ]
    if not beyond:
        return 0.0
    (few, first), (many, last) = beyond[0], beyond[-1]
    return max(0.0, (last - first) / (many - few) if many > few else last / many)


def why(costs: Costs | None) -> str:
    """The reason for the choice of a policy, in words."""
    if costs is None:
        return "no costs could be measured"
    return f"the vision encoder takes {costs.vision_share:.0%} of the large model's prefill"


def _verdict(costs: Costs, config: SGLConfig, context: int) -> int | None:
    """The fewest visual tokens that guidance pays for, with the server's own settings."""
    exits = config.exit_threshold is not None
    tokens = answer_tokens(Facts(), config.exit_threshold, config.query_rows, config.guide_tokens)
    return costs.break_even(config.retention, exits, tokens, context - 1)


def _summary(costs: Costs, config: SGLConfig, fewest: int | None) -> str:
    about = f"retention {config.retention:g}"
    about += " and early exit" if config.exit_threshold is not None else ""
    base, each = costs.guide
    cost = f"a guide pass takes {1000 * base:.0f} ms and {1e6 * each:.0f} ms per 1,000 visual tokens"
    if fewest is None:
        return (
            f"{cost}: more than pruning saves the large model at {about}, so it is left alone "
            "(--sgl-break-even off guides every request)"
        )
    return f"{cost}; at {about} that pays from {fewest} visual tokens, and requests with fewer are not guided"
