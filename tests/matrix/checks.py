"""What holds of every request, whatever it is about: images, videos or both."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.compare import assert_same_answer, assert_same_importance
from tests.support.engines import Engines, inputs
from tools.reference import Generated, select
from vllm_sgl.core import Late, Outcome
from vllm_sgl.decide.follow_ups import FollowUps
from vllm_sgl.host.render.turns import Turns
from vllm_sgl.pipeline import Pipeline
from vllm_sgl.prune.base import kept_count
from vllm_sgl.prune.late import given_prompt
from vllm_sgl.prune.memory import Memory
from vllm_sgl.prune.registry import policy
from vllm_sgl.prune.rewrite import prune_prompt
from vllm_sgl.visual.items import placed_items, visual_counts

#: What suits the tiny checkpoints; both ways to start a pair.
CONTEXT = 640


def expected(
    engines: Engines, prompt: Any, kept: Sequence[torch.Tensor] | None, max_tokens: int = 4
) -> Generated:
    """The large model's answer in transformers; kept: None for everything."""
    return engines.large_reference.generate(
        *inputs(prompt), max_tokens, keep=kept, positions=engines.config.positions
    )


def random_masks(prompt: Any, seed: int, share: float = 0.3) -> list[torch.Tensor]:
    """Kept indices of each item; at least one, because not every family can do without."""
    generator = torch.Generator().manual_seed(seed)
    masks = select([torch.rand(count, generator=generator) for count in visual_counts(prompt)], share)
    return [mask if len(mask) else torch.tensor([0]) for mask in masks]


async def check_walk(engines: Engines, prompt: Any, retention: float) -> Outcome:
    """The guide's answer and importance, the mask that it makes, and the large model's answer on it."""
    outcome = await engines.walk(prompt, sgl_retention=retention)
    report = outcome.report
    assert (report.decision, report.reason) == ("prune", None)
    assert report.visual_tokens == sum(visual_counts(prompt))
    assert report.kept_tokens == kept_count(retention, report.visual_tokens)
    dropped = report.visual_tokens - report.kept_tokens
    assert len(outcome.prompt["prompt_token_ids"]) == len(prompt["prompt_token_ids"]) - dropped
    tokens = engines.reference.generate(*inputs(prompt), 8).tokens
    assert list(report.answer.token_ids) == tokens
    importance = engines.reference.importance(*inputs(prompt), tokens)
    assert_same_importance(report.importance, importance)
    kept = select(importance, retention, engines.reference.least)
    assert [part.tolist() for part in report.kept] == [part.tolist() for part in kept]
    assert_same_answer(await engines.answer_large(outcome.prompt, 4), expected(engines, prompt, kept))
    return outcome


async def check_exit(engines: Engines, prompt: Any) -> None:
    """The small model's answer is all there is, and scored as the reference scores it."""
    outcome = await engines.walk(prompt, max_tokens=6, sgl_exit_threshold=0.0)
    answer = engines.reference.generate(*inputs(prompt), 6)
    assert outcome.report.decision == "exit"
    assert list(outcome.answer.token_ids) == answer.tokens
    consistent = engines.reference.consistency(
        *inputs(prompt), answer.tokens, positions=engines.config.positions
    )
    assert outcome.report.consistency == pytest.approx(consistent, rel=1e-2)


async def check_masks_are_kept_apart(engines: Engines, prompt: Any) -> None:
    """Two masks, everything and the first mask again, one after the other and together.

    Args:
        prompt: so long that enough is left to fill a block of the prefix cache.
    """
    masks = [random_masks(prompt, seed, share=0.8) for seed in (1, 2)]
    asked = [*(prune_prompt(prompt, mask, engines.tiles) for mask in masks), prompt]
    wanted = [expected(engines, prompt, mask) for mask in (*masks, None)]
    for _ in range(2):
        answers = [await engines.answer_large(one, 4) for one in asked]
        together = await asyncio.gather(*(engines.answer_large(one, 4) for one in asked))
        for one, two, answer in zip(answers, together, wanted, strict=True):
            assert_same_answer(one, answer)
            assert_same_answer(two, answer)
    assert await engines.cached_tokens(asked[0]) > 0
    one, two, _ = wanted
    assert one.tokens != two.tokens or not torch.allclose(one.logprobs, two.logprobs, atol=2e-2)


async def check_late_tokens(engines: Engines, prompt: Any) -> None:
    """Some visual tokens of each item stand behind all of them, and others in front of a later token."""
    masks = random_masks(prompt, 6)
    end = max(item.place.offset + item.place.length for item in placed_items(prompt))
    late = []
    for number, (kept, count) in enumerate(zip(masks, visual_counts(prompt), strict=True)):
        missing = torch.arange(count)[~torch.isin(torch.arange(count), kept)]
        late += [Late(number, end, missing[::3]), Late(number, end + 4, missing[1::3])]
    late.sort(key=lambda one: one.at)
    wanted = engines.large_reference.generate(
        *inputs(prompt), 4, keep=masks, positions=engines.config.positions,
        late=[(one.number, one.at, one.indices) for one in late],
    )  # fmt: skip
    given = given_prompt(prompt, masks, late, engines.tiles)
    for _ in range(2):  # the second time out of the prefix cache
        assert_same_answer(await engines.answer_large(given, 4), wanted)
    less = prune_prompt(prompt, masks, engines.tiles)
    assert_same_answer(await engines.answer_large(less, 4), expected(engines, prompt, masks))


async def check_conversation(
    engines: Engines, prompts: Sequence[Any], mode: str, retention: float
) -> list[Outcome]:
    """Turns of one conversation, each of which begins like the one before.

    Args:
        prompts: so long that the first one's kept tokens fill a block of the prefix cache.
    """
    block = engines.large.vllm_config.cache_config.block_size
    follow_ups = FollowUps(Memory(), block, Turns(engines.renderer).last_start)
    pipeline = Pipeline(engines.config, engines.guide, policy, engines.rewrite, follow_ups=follow_ups)
    outcomes = []
    for number, prompt in enumerate(prompts):
        outcome = await engines.walk(prompt, pipeline=pipeline, sgl_retention=retention, sgl_follow_ups=mode)
        report = outcome.report
        wanted = engines.large_reference.generate(
            *inputs(prompt), 4, keep=report.kept, positions=engines.config.positions,
            late=[(one.number, one.at, one.indices) for one in report.late],
        )  # fmt: skip
        found = await engines.cached_tokens(outcome.prompt)
        assert bool(found) == bool(number)
        assert_same_answer(await engines.answer_large(outcome.prompt, 4), wanted)
        outcomes.append(outcome)
    return outcomes


@contextmanager
def in_little_cache(case: tuple[Any, str], pair: tuple[Path, Path]) -> Iterator[Engines]:
    """Engines that prefill in pieces of 48 tokens, in a KV cache that holds little more than one request."""
    engines = Engines(
        pair, sgl={"positions": case[1]}, max_model_len=CONTEXT, enable_prefix_caching=True,
        small_args={"max_num_batched_tokens": 48, "kv_cache_memory_bytes": 3 << 20},
        max_num_batched_tokens=48, kv_cache_memory_bytes=6 << 20,
    )  # fmt: skip
    try:
        yield engines
    finally:
        engines.shutdown()
