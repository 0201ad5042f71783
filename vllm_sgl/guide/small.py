"""The small model at work: one greedy pass that is watched, and the consistency pass."""

import asyncio
import time
import uuid
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from vllm_sgl.config import QueryRows
from vllm_sgl.decision import Reason
from vllm_sgl.errors import GuideError, RequestAborted
from vllm_sgl.guide import score
from vllm_sgl.guide.collector import Collector
from vllm_sgl.guide.recorder import query_rows
from vllm_sgl.guide.result import Answer, GuideResult
from vllm_sgl.guide.worker import ROWS_KEY, TRACK_KEY
from vllm_sgl.host.mm_input import visual_positions
from vllm_sgl.host.output import EngineDeadError, replay_until_stop

#: Relative error allowed in total attention mass: probabilities are summed in float32.
MASS_TOLERANCE = 1e-3
#: How often a pending RPC checks that the engine still lives.
DEATH_CHECK_SECONDS = 0.2


@dataclass(frozen=True)
class GuideRequest:
    """prompt: a rendered ``MultiModalInput``. visual_tokens: per image. params: the client's own.
    max_tokens: the most tokens that the client allows. query_rows: which rows count for importance."""

    id: str
    prompt: Any
    visual_tokens: tuple[int, ...]
    params: SamplingParams
    max_tokens: int
    query_rows: QueryRows
    priority: int = 0


class SmallModelGuide:
    """Guides over an ``AsyncLLM`` of the small model.

    Args:
        engine: the small engine, its workers extended by ``GuideWorkerExtension`` and installed.
        attention_rows: layers x heads over all workers; a row of the sum of attention mass.
        timeout: seconds before a pass counts as failed.
    """

    def __init__(self, engine: Any, attention_rows: int, timeout: float) -> None:
        self._engine = engine
        self._attention_rows = attention_rows
        self._timeout = timeout
        self._collector = Collector(self._take)

    @property
    def context(self) -> int:
        """The most tokens, prompt and answer, that the small model takes."""
        return self._engine.model_config.max_model_len

    @property
    def alive(self) -> bool:
        return not self._engine.errored

    async def look(self, request: GuideRequest, guide_tokens: int) -> GuideResult:
        """Answer greedily and read importance.

        Raises:
            GuideError: when the small engine fails, is dead, is too slow, or missed attention rows.
            RequestAborted: when the request was aborted by its id.
        """
        return await self._guarded(self._look(request, guide_tokens))

    async def consistency(self, id: str, prompt: Any, answer: Answer, priority: int = 0) -> float:
        """How far the small model stands by its answer on fewer visual tokens: one forward pass,
        teacher-forced (arXiv 2412.03324, section 3.3).

        prompt: the rendered prompt with only the most important visual tokens left.
        """
        return await self._guarded(self._consistency(id, prompt, answer, priority))

    async def warm_up(self) -> None:
        """Run both passes once on a few text tokens: vLLM compiles its log-probability code on first
        use, which takes seconds that no request should wait for."""
        prompt = {"type": "token", "prompt_token_ids": [0, 0]}
        await self._run(prompt, _guide_params(SamplingParams(), 2), "sgl-warm-up-guide", 0)
        await self._run(prompt, _forcing_params(), "sgl-warm-up-consistency", 0)

    async def abort(self, request_id: str) -> None:
        await self._engine.abort([_guide_id(request_id), _consistency_id(request_id)])

    async def _look(self, request: GuideRequest, guide_tokens: int) -> GuideResult:
        key, prompt_end = uuid.uuid4().hex, len(request.prompt["prompt_token_ids"])
        # One token is left free: the consistency pass generates one after the answer.
        most = min(guide_tokens, request.max_tokens, self.context - prompt_end - 1)
        visual_end = int(visual_positions(request.prompt["mm_placeholders"]["image"])[-1]) + 1
        rows_until = partial(query_rows, request.query_rows, visual_end, prompt_end)
        due = rows_until(prompt_end + most)
        params = _guide_params(request.params, most, {TRACK_KEY: key, ROWS_KEY: [due.start, due.stop]})
        try:
            output = await self._run(request.prompt, params, _guide_id(request.id), request.priority)
        except BaseException:
            self._collector.discard(key)
            raise
        completion = output.outputs[0]
        tokens = tuple(completion.token_ids)
        recorded = await self._collector.take(key)
        rows = len(rows_until(prompt_end + len(tokens) - 1)) or 1  # one that stands in
        importance = self._importance(recorded, rows, request.visual_tokens)
        return GuideResult(importance, self._answer(request, completion, tokens))

    async def _take(self, keys: list[str]) -> list[Any]:
        """One RPC. vLLM leaves the pending calls of an engine that dies waiting for ever, so look out
        for its death meanwhile; remove when vLLM fails them."""
        call = asyncio.ensure_future(
            self._engine.collective_rpc("sgl_take", timeout=self._timeout, args=(keys,))
        )
        while not (await asyncio.wait([call], timeout=DEATH_CHECK_SECONDS))[0]:
            if not self.alive:
                call.cancel()
                raise EngineDeadError()
        return call.result()

    def _importance(
        self, recorded: Sequence[dict[str, Any] | None], rows: int, visual_tokens: tuple[int, ...]
    ) -> list[torch.Tensor]:
        """Sum over workers (each has a shard of the heads or layers), checked against what must be there."""
        seen = [entry for entry in recorded if entry is not None]
        total, expected = sum(entry["total"] for entry in seen), rows * self._attention_rows
        if abs(total - expected) > MASS_TOLERANCE * expected:
            counted = [entry["rows"] for entry in seen]
            raise GuideError(
                Reason.GUIDE_FAILED,
                f"attention capture is incomplete: total mass {total:.3f}, expected {expected} ({rows} query "
                f"rows x {self._attention_rows} layers and heads; workers counted {counted} rows). A fully "
                "captured CUDA graph or a prefix-cache hit in the small engine would do this",
            )
        mass = torch.zeros(sum(visual_tokens), dtype=torch.float32)
        for entry in seen:
            mass += torch.frombuffer(bytearray(entry["mass"]), dtype=torch.float32)
        return list(mass.split(visual_tokens))

    def _answer(self, request: GuideRequest, completion: Any, tokens: tuple[int, ...]) -> Answer:
        logprobs = tuple(
            entry[token].logprob for entry, token in zip(completion.logprobs, tokens, strict=True)
        )
        text, reason, stop = completion.text, completion.finish_reason, completion.stop_reason
        if request.params.stop:
            found = replay_until_stop(
                self._engine.get_tokenizer(), request.params, request.prompt["prompt_token_ids"], tokens
            )
            if found is not None:
                text, stop, count = found
                tokens, logprobs, reason = tokens[:count], logprobs[:count], "stop"
        finished = reason == "stop" or len(tokens) >= request.max_tokens
        return Answer(text, tokens, logprobs, finished, reason, stop)

    async def _consistency(self, id: str, prompt: Any, answer: Answer, priority: int) -> float:
        asked = len(prompt["prompt_token_ids"])
        forced = {**prompt, "prompt_token_ids": [*prompt["prompt_token_ids"], *answer.token_ids]}
        output = await self._run(forced, _forcing_params(), _consistency_id(id), priority)
        logprobs = [
            entry[token].logprob
            for entry, token in zip(output.prompt_logprobs[asked:], answer.token_ids, strict=True)
        ]
        return score.consistency(logprobs)

    async def _run(self, prompt: Any, params: SamplingParams, id: str, priority: int) -> Any:
        final = None
        async for output in self._engine.generate(prompt, params, id, priority=priority):
            final = output
        if final is None or final.outputs[0].finish_reason == "abort":
            raise RequestAborted(f"guide request {id} was aborted")
        return final

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Turn every way to fail into a GuideError; cancellation stays cancellation."""
        if not self.alive:
            work.close()
            raise GuideError(Reason.GUIDE_DEAD, "the small engine is dead")
        start = time.monotonic()
        try:
            return await asyncio.wait_for(work, self._timeout)
        except (GuideError, RequestAborted):
            raise
        except asyncio.TimeoutError:
            waited = time.monotonic() - start
            raise GuideError(Reason.GUIDE_TIMEOUT, f"no answer after {waited:.1f} s") from None
        except EngineDeadError as error:
            raise GuideError(Reason.GUIDE_DEAD, "the small engine died") from error
        except Exception as error:
            reason = Reason.GUIDE_FAILED if self.alive else Reason.GUIDE_DEAD
            raise GuideError(reason, f"{type(error).__name__}: {error}") from error


def _guide_id(request_id: str) -> str:
    return f"sgl-guide-{request_id}"


def _consistency_id(request_id: str) -> str:
    return f"sgl-consistency-{request_id}"


def _guide_params(
    params: SamplingParams, max_tokens: int, extra_args: dict[str, Any] | None = None
) -> SamplingParams:
    """Greedy, otherwise under the client's own rules about tokens. Stop strings are applied to the
    finished answer instead: vLLM aborts on them late, after rows that must not count."""
    return SamplingParams(
        temperature=0,
        max_tokens=max_tokens,
        min_tokens=min(params.min_tokens, max_tokens),
        logprobs=0,
        stop_token_ids=params.stop_token_ids,
        ignore_eos=params.ignore_eos,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        repetition_penalty=params.repetition_penalty,
        logit_bias=params.logit_bias,
        allowed_token_ids=params.allowed_token_ids,
        bad_words=params.bad_words,
        skip_special_tokens=params.skip_special_tokens,
        spaces_between_special_tokens=params.spaces_between_special_tokens,
        include_stop_str_in_output=params.include_stop_str_in_output,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_reading_prefix_cache=True,
        extra_args=extra_args,
    )


def _forcing_params() -> SamplingParams:
    """One forward pass that gives the log-probability of every prompt token."""
    return SamplingParams(
        temperature=0,
        max_tokens=1,
        prompt_logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_reading_prefix_cache=True,
    )
