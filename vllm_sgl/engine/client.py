"""The engine client of an SGL server: vLLM's ``AsyncLLM`` for the large model, guided by a small one."""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.exceptions import RetryableRequestError
from vllm.outputs import RequestOutput

from vllm_sgl.config import SGLConfig
from vllm_sgl.core import GuideRequest, Outcome
from vllm_sgl.decide.costs import Costs
from vllm_sgl.engine import measure_costs
from vllm_sgl.engine.beside import StartingGuide
from vllm_sgl.engine.follow_ups import follow_ups_of
from vllm_sgl.engine.in_flight import Guiding, admitted
from vllm_sgl.engine.known_costs import KnownCosts
from vllm_sgl.engine.refused import refuse_unsupported
from vllm_sgl.engine.shutdown import End, Shutdown, ShuttingDownError
from vllm_sgl.engine.start import SmallEngines, preparing_guide, refusing, starting_large
from vllm_sgl.errors import GuideFailedError, RequestAborted, StartRefused
from vllm_sgl.families import family_of, tiles_of
from vllm_sgl.guide.base import Guide, load_of
from vllm_sgl.guide.build import guide_of
from vllm_sgl.host.render import processor_cache
from vllm_sgl.host.request.output import abort_output, exit_output
from vllm_sgl.host.request.reasoning import content_test
from vllm_sgl.host.start import cpu
from vllm_sgl.host.start.async_llm import BULK, AsyncLLM, check_request
from vllm_sgl.host.start.interrupts import interruptible_start
from vllm_sgl.host.start.process_name import naming_processes
from vllm_sgl.model.scheduler import charge_what_is_encoded
from vllm_sgl.pipeline import Pipeline
from vllm_sgl.prune.auto import AUTO, best_policy
from vllm_sgl.prune.late import given_prompt
from vllm_sgl.prune.registry import check_policies, policy
from vllm_sgl.request import client_request, exit_rules
from vllm_sgl.request.facts import FactsReader
from vllm_sgl.request.options import RequestOptions, options_of
from vllm_sgl.telemetry.metrics import metrics
from vllm_sgl.telemetry.request_log import RequestLog

logger = logging.getLogger("vllm.vllm_sgl.engine")


class UnguidedRequestError(RetryableRequestError, GuideFailedError):
    """A request that failed because its guide did, in vLLM's terms: a 503, or an error chunk in a stream."""


class SGLAsyncLLM(AsyncLLM):
    """Answers requests as ``AsyncLLM`` does, after asking the guide.

    The small engine is started first, so that the large one measures what is left of the device, or both side
    by side where nothing is measured.

    wrap_guide: given the small model's guide, returns the one to ask; set it before the first request.
    costs: of both models' passes, once measured; None if no setting needs them.
    """

    wrap_guide: Callable[[Guide], Guide] | None = None
    costs: Costs | None = None
    _ended = False
    _log: RequestLog | None = None

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        self._shutdown = Shutdown()  # first: what fails to start is shut down too
        config = SGLConfig.of(vllm_config.additional_config)
        assert config is not None, "an SGL engine client without SGL settings"
        with refusing():
            check_policies(config.policies)
            refuse_unsupported(vllm_config, kwargs.get("client_count"))
            self._log = RequestLog.of(config)
        cpu.share_cores()
        self.sgl_config = config
        patient = kwargs.get("usage_context") in BULK
        with refusing(), interruptible_start():
            small = SmallEngines(vllm_config, config)
            self._small = small
            starting = StartingGuide(small, config, patient)
        self._ready: asyncio.Task[Pipeline] | None = None
        self._guiding = Guiding()
        model, same_tokens = vllm_config.model_config, small.verdict.same_tokens
        self._reader = FactsReader.of(family_of(model), model, same_tokens, exit_rules.possible(vllm_config))
        try:
            with interruptible_start(), processor_cache.keeping_pixels(vllm_config) as keep:
                # vLLM chose one for an engine that is alone on the machine.
                kwargs["executor_class"] = cpu.executor_class(vllm_config)
                charge_what_is_encoded(vllm_config)
                with starting_large(vllm_config.model_config.model), naming_processes(""):
                    super().__init__(vllm_config, *args, **kwargs)
                keep(self.renderer)
                started = starting.result()
            self._guide = self._local_guide = guide_of(
                started, small.verdict, small.config, self.renderer, patient
            )
        except BaseException as error:
            # A killed engine leaves a semaphore, of which Python's resource tracker would have the last word,
            # not the refusal.
            grace = None if isinstance(error, StartRefused) else 0
            starting.give_up(grace)
            self.shutdown(grace)
            raise
        metrics().watch(self, config.profiles)
        logger.info(
            "SGL changes three settings of the large engine: its vision encoder runs without CUDA graphs "
            "(they would bypass the pruning); the processor cache stays in this process (a rewritten prompt "
            "needs its pixels); its scheduler, a class of ours that vLLM warns about, budgets images by "
            "their encoded tokens, not by their kept ones"
        )

    @property
    def guide_alive(self) -> bool:
        """Whether the guide answers; a server without it answers unguided."""
        return self._local_guide.alive

    @property
    def guide_load(self) -> tuple[int, int]:
        """Requests that the guide works on, and those that wait for it."""
        return load_of(self._local_guide)

    def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **kwargs: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """As ``AsyncLLM.generate``; outputs carry a report as ``.sgl``.

        Raises:
            VLLMValidationError: at once, for a bad ``sgl_*`` key in ``extra_args``, a bad header of the
                client's, or pixels that the model would not take (a 400 over HTTP).
        """
        self._reader.check(prompt)
        about = client_request.current.get() or client_request.Asked(seen=False)
        options = options_of(about, sampling_params.extra_args, self.sgl_config)
        made = about.request(sampling_params.n)
        return self._generate(prompt, sampling_params, request_id, options, made, kwargs)

    async def _generate(
        self, prompt: Any, params: SamplingParams, request_id: str, options: RequestOptions,
        made: client_request.EngineRequest, kwargs: dict[str, Any],
    ) -> AsyncGenerator[RequestOutput, None]:  # fmt: skip
        answers = self._answer(prompt, params, request_id, options, made, kwargs)
        if self._log is not None:
            answers = self._log.following(answers, prompt, params, request_id, options, made)
        try:
            with self._shutdown.request():
                async with aclosing(answers) as outputs:
                    async for output in outputs:
                        yield output
        except (UnguidedRequestError, ShuttingDownError) as error:
            made.asked.failure = error
            raise

    async def _answer(
        self, prompt: Any, params: SamplingParams, request_id: str, options: RequestOptions,
        made: client_request.EngineRequest, kwargs: dict[str, Any],
    ) -> AsyncGenerator[RequestOutput, None]:  # fmt: skip
        try:
            async with self._shutdown.interruptible():
                outcome = await self._walk(prompt, params, request_id, options, made.asked, kwargs)
        except RequestAborted:
            yield abort_output(request_id, prompt)
            return
        except GuideFailedError as error:
            raise UnguidedRequestError(str(error)) from error
        if made.report is None:  # the steps of a beam search are one request
            metrics().observe(outcome.report)
        made.report = outcome.report.without_tensors()
        if outcome.answer is not None:
            output = exit_output(request_id, prompt, outcome.answer)
            output.sgl = outcome.report
            yield output
            return
        given = prompt if outcome.prompt is None else outcome.prompt
        if outcome.prompt is not None:  # vLLM would measure the room for an answer from the pruned prompt
            params = params.clone()
            params.max_tokens = outcome.max_tokens
        async with aclosing(super().generate(given, params, request_id, **kwargs)) as outputs:
            async for output in outputs:
                if outcome.heard is not None and _has_looked_up(output):
                    outcome.heard(output.num_cached_tokens)
                    outcome = replace(outcome, heard=None)  # later outputs say the same
                if outcome.prompt is not None:
                    output.prompt_token_ids = prompt["prompt_token_ids"]
                output.sgl = outcome.report
                yield output

    async def _walk(
        self, prompt: Any, params: SamplingParams, request_id: str, options: RequestOptions,
        about: client_request.Asked, kwargs: dict[str, Any],
    ) -> Outcome:  # fmt: skip
        pipeline = await self._pipeline()
        lora = kwargs.get("lora_request")
        facts = self._reader.read(prompt, params, about, lora)
        admitted.set(facts.bypass is None)
        if facts.bypass is not None:
            return await pipeline.walk(None, facts, options)
        # An exit must not answer what the large engine refuses, and a refusal is not worth the guide's work.
        await check_request(self, prompt, params, request_id, kwargs)
        super().check_admission(params.n, request_id)
        tokenizer, ids = self.renderer.tokenizer, prompt["prompt_token_ids"]
        facts = replace(facts, is_content=content_test(self.vllm_config, tokenizer, ids, kwargs))
        assert facts.max_tokens is not None
        request = GuideRequest(
            request_id, prompt, facts.items, exit_rules.unforced(params), facts.max_tokens,
            options.query_rows, priority=kwargs.get("priority", 0), lora=lora and lora.lora_name,
        )  # fmt: skip
        walk = pipeline.walk(request, facts, options)
        return await self._guiding.through(request_id, facts.prompt_tokens, walk)

    async def get_supported_tasks(self) -> Any:
        # A server asks before it serves: a guide that cannot work fails here. So does every request, and
        # among them those that measure costs for the pipeline.
        if asyncio.current_task() is not self._ready:
            with preparing_guide(self.sgl_config.small):
                await self._pipeline()
        return await super().get_supported_tasks()

    async def _pipeline(self) -> Pipeline:
        """The walk, over a guide that has been started."""
        if self._ready is None:
            self._ready = asyncio.create_task(self._start())
        return await asyncio.shield(self._ready)

    async def _start(self) -> Pipeline:
        config, guide = self.sgl_config, self._guide
        await guide.start()
        wants_best = AUTO in config.policies.values()
        if config.break_even != "off" or wants_best:
            known = KnownCosts.of(self.vllm_config, self._small.config, config)
            self.costs = await measure_costs.known_or_measured(
                self, super().generate, guide, self._reader, config, known
            )
        best = best_policy(None if self.costs is None else self.costs.vision_share)
        if wants_best:
            logger.info("SGL: --sgl-policy auto is %r here: %s", best, measure_costs.why(self.costs))
        if self.wrap_guide is not None:
            self._guide = self.wrap_guide(guide)
        rewrite = partial(given_prompt, tiles=tiles_of(self.model_config))
        compared = None if config.break_even == "off" else self.costs
        return Pipeline(
            config, self._guide, lambda name: policy(best if name == AUTO else name), rewrite, compared,
            guide.sees, follow_ups_of(self.vllm_config, self.renderer, config, compared),
        )  # fmt: skip

    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        ids = [request_id] if isinstance(request_id, str) else list(request_id)
        for guided in self._guiding.abort(ids):
            await self._guide.abort(guided)
        await super().abort(ids, internal)

    def get_num_unfinished_requests(self) -> int:
        return int(super().get_num_unfinished_requests()) + len(self._guiding)

    def get_num_queued_tokens(self) -> int:
        return int(super().get_num_queued_tokens()) + self._guiding.tokens

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        """As ``AsyncLLM.check_admission``, which vLLM calls before a response is started: a stream of the
        Responses API has its status when :meth:`generate` is called.

        Raises:
            VLLMValidationError: for a bad key or header of the client's.
        """
        if admitted.get():  # before the guide, and not again after its work
            return
        if (about := client_request.current.get()) is not None:
            options_of(about, about.keys, self.sgl_config)
        super().check_admission(n, request_id)

    def shutdown(self, timeout: float | None = None) -> None:
        if self._ended:  # and called again by __del__, at the interpreter's end without modules
            return
        self._ended = True
        if self._log is not None:
            self._log.close()
        engines: list[tuple[Any, End]] = [(self, super().shutdown)]
        if guide := getattr(self, "_local_guide", None):
            engines.append((None, guide.stop))
        if sys.is_finalizing():  # no new threads at the interpreter's end
            for _, end in engines:
                end(timeout)
            return
        self._shutdown.run(engines, timeout)


def _has_looked_up(output: RequestOutput) -> bool:
    """Whether the number of cached tokens counts: a request that is aborted before its prefill says 0."""
    aborted = any(one.finish_reason == "abort" for one in output.outputs)
    return output.num_cached_tokens is not None and not aborted
