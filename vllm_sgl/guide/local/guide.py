"""The local guide: one greedy pass whose attention is recorded, and the consistency pass."""

import logging
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vllm import SamplingParams

from vllm_sgl.core import GuideRequest, GuideResult, RenderedPrompt, Seen
from vllm_sgl.decide.scores.parts import joint
from vllm_sgl.families import tiles_of
from vllm_sgl.guide.guards.admission import Capacity
from vllm_sgl.guide.local import params
from vllm_sgl.guide.local.answers import read_answer
from vllm_sgl.guide.local.collector import Collector
from vllm_sgl.guide.local.mass import importance
from vllm_sgl.guide.local.passes import Passes
from vllm_sgl.guide.local.recorder import query_rows
from vllm_sgl.guide.local.scheduler import reads_cache
from vllm_sgl.guide.local.turns import Turns
from vllm_sgl.guide.local.worker import ROWS_KEY, TRACK_KEY
from vllm_sgl.host.request.liveness import ready_in_time, while_alive
from vllm_sgl.prune.registry import policy
from vllm_sgl.prune.rewrite import prune_prompt, tag_items
from vllm_sgl.visual.items import visual_end

logger = logging.getLogger("vllm.vllm_sgl.guide")


class LocalGuide:
    """A :class:`vllm_sgl.guide.base.Guide` over an ``AsyncLLM`` of the small model; takes prompts that are
    rendered for that one.

    Args:
        engine: the small engine, its workers extended by ``GuideWorkerExtension``.
        timeout, patient: as :class:`vllm_sgl.guide.local.passes.Passes` has them.
    """

    def __init__(self, engine: Any, timeout: float, patient: bool = False) -> None:
        self.engine = engine
        self._passes = Passes(engine, timeout, patient)
        self._collector = Collector(self._passes.take)
        self._tiles = tiles_of(engine.model_config)
        self._heads = 0
        self._rows_alone = bool(engine.vllm_config.use_v2_model_runner)
        self._turns = Turns.of(engine.get_tokenizer())
        self._reads_cache = reads_cache(engine.vllm_config)

    @property
    def context(self) -> int:
        most: int = self.engine.model_config.max_model_len
        return most

    @property
    def alive(self) -> bool:
        return self._passes.alive

    def sees(self, request: GuideRequest) -> int:
        return sum(request.visual_tokens)

    @property
    def capacity(self) -> Capacity:
        """The requests and tokens that the small engine's batch and KV cache hold."""
        config = self.engine.vllm_config
        cache, requests = config.cache_config, config.scheduler_config.max_num_seqs
        return Capacity(requests, cache.kv_cache_size_tokens, cache.block_size)

    async def start(self) -> None:
        """Install the capture in every worker, and run both passes once on a few text tokens: vLLM compiles
        its log-probability code on first use, which takes seconds that no request should wait for."""
        async with ready_in_time("the small engine (--sgl-small)"):
            installed = await while_alive(self.engine, self.engine.collective_rpc("sgl_install"))
            self._heads = sum(len(worker["layers"]) * worker["heads"] for worker in installed)
            _say_what_is_read(installed)
            await self._passes_on_text()

    async def probe(self) -> None:
        await self._passes.guarded(self._passes_on_text())

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        return await self._passes.guarded(self._look(request, answer_tokens))

    async def confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        return await self._passes.guarded(self._confirm(request, result, share))

    async def abort(self, request_id: str) -> None:
        await self.engine.abort([_look_id(request_id), _confirm_id(request_id)])

    def stop(self, timeout: float | None = None) -> None:
        self.engine.shutdown(timeout)

    async def _passes_on_text(self) -> None:
        prompt: Any = {"type": "token", "prompt_token_ids": [0, 0]}
        await self._passes.run(prompt, params.looking(SamplingParams(), 2), "sgl-text-guide", 0)
        forcing = params.forcing([0], 1, self._rows_alone)
        await self._passes.run(prompt, forcing, "sgl-text-consistency", 0)

    async def _look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        key, prompt_end = uuid.uuid4().hex, len(request.prompt["prompt_token_ids"])
        # One token is left free: the consistency pass generates one after the answer.
        most = min(answer_tokens, request.max_tokens, self.context - prompt_end - 1)
        end = visual_end(request.prompt)
        turn = self._turns.last(request.prompt["prompt_token_ids"], end)
        rows_until = partial(query_rows, request.query_rows, end, prompt_end, last_turn=turn)
        due = rows_until(prompt_end + most)
        tracking = {TRACK_KEY: key, ROWS_KEY: [due.start, due.stop]}
        sampling = params.looking(request.params, most, tracking, self._reads_cache)
        tagged = tag_items(request.prompt, self._tiles)
        try:
            output = await self._passes.run(tagged, sampling, _look_id(request.id), request.priority)
        except BaseException:
            self._collector.discard(key)
            raise
        completion = output.outputs[0]
        recorded = await self._collector.take(key)
        # The last token is never fed back; where no row is left, one stands in.
        rows = len(rows_until(prompt_end + len(completion.token_ids) - 1)) or 1
        mass = importance(recorded, rows, self._heads, request.visual_tokens)
        return GuideResult(mass, read_answer(self.engine.get_tokenizer(), request, completion))

    async def _confirm(self, request: GuideRequest, result: GuideResult, share: float) -> float:
        """One forward pass, teacher-forced."""
        seen = [Seen(*pair) for pair in zip(request.items, result.importance, strict=True)]
        shown = prune_prompt(request.prompt, policy("top").select(seen, share), self._tiles)
        asked, answer = shown["prompt_token_ids"], result.answer.token_ids
        forced: RenderedPrompt = {**shown, "prompt_token_ids": [*asked, *answer]}
        forcing = params.forcing(answer, len(asked), self._rows_alone)
        output = await self._passes.run(forced, forcing, _confirm_id(request.id), request.priority)
        return joint(params.answer_logprobs(output, answer, len(asked)))


def _say_what_is_read(installed: Sequence[Mapping[str, Any]]) -> None:
    """One line where a decoder has layers that are not read."""
    if all(len(worker["layers"]) == worker["of"] for worker in installed):
        return
    read = sorted({number for worker in installed for number in worker["layers"]})
    logger.info(
        "SGL: the guide reads the small model's layers %s, which have full attention; its other layers have "
        "windows or none, and say nothing of the whole prompt", ", ".join(map(str, read)),
    )  # fmt: skip


def _look_id(request_id: str) -> str:
    return f"sgl-guide-{request_id}"


def _confirm_id(request_id: str) -> str:
    return f"sgl-consistency-{request_id}"
