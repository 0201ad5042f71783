"""The engine client of an SGL server: vLLM's ``AsyncLLM`` for the large model, guided by a small one."""

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any

from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.outputs import RequestOutput

from vllm_sgl.break_even import Costs
from vllm_sgl.config import RequestOptions, SGLConfig
from vllm_sgl.decision import Exit, Facts, Prune
from vllm_sgl.errors import RequestAborted
from vllm_sgl.guide.small import GuideRequest, SmallModelGuide
from vllm_sgl.host import cpu, memory, pair, renderer, small_engine
from vllm_sgl.host.async_llm import AsyncLLM
from vllm_sgl.host.engine_args import refuse_replicas
from vllm_sgl.host.output import abort_output, exit_output
from vllm_sgl.pipeline import Guide, Outcome, Pipeline
from vllm_sgl.prune import rewrite
from vllm_sgl.prune.top_importance import TopImportance
from vllm_sgl.serve import calibration, context, facts
from vllm_sgl.serve.metrics import metrics

logger = logging.getLogger("vllm.vllm_sgl.engine")


class SGLAsyncLLM(AsyncLLM):
    """Answers every request as ``AsyncLLM`` does, after the guide had its say.

    The small engine is started first, so that the large one measures what is left of the device.

    wrap_guide: given the small model's guide, returns the one to ask; set it before the first request.
    costs: of both models' passes, once measured; None with ``break_even="off"``.
    """

    wrap_guide: Callable[[Guide], Guide] | None = None
    costs: Costs | None = None
    _ended = False

    def __init__(self, vllm_config: VllmConfig, *args: Any, **kwargs: Any) -> None:
        config = SGLConfig.of(vllm_config.additional_config)
        assert config is not None, "an SGL engine client without SGL settings"
        _refuse_unsupported(vllm_config, kwargs.get("client_count"))
        cpu.share_cores()
        small = small_engine.small_config(vllm_config, config)
        pair.check_pair(vllm_config.model_config, small.model_config)
        fixed_kv = config.small_args.get("kv_cache_memory_bytes")
        memory.apply(memory.plan(vllm_config, small, config.small_memory, fixed_kv), vllm_config, small)
        self.sgl_config = config
        self._small = small_engine.start_small(small)
        self._guide_ready: asyncio.Task[Pipeline] | None = None
        self._guide: SmallModelGuide | None = None
        self._guiding: set[str] = set()
        try:
            with renderer.keeping_pixels(vllm_config) as keep:
                # In place of the one that vLLM chose for an engine that is alone.
                kwargs["executor_class"] = cpu.executor_class(vllm_config)
                super().__init__(vllm_config, *args, **kwargs)
                keep(self.renderer)
        except BaseException:
            self._small.shutdown()
            raise
        metrics().watch(lambda: self.guide_alive)
        logger.info(
            "SGL: the large engine keeps its settings but two: its vision encoder runs without CUDA graphs "
            "(they would bypass the pruning), and processed images are cached in this process instead of "
            "being sent to the engine once (a rewritten prompt needs its pixels)"
        )

    @property
    def guide_alive(self) -> bool:
        """Whether the small engine can guide; a server without it answers unguided."""
        return not self._small.errored

    def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **kwargs: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """As ``AsyncLLM.generate``; outputs carry a report as ``.sgl``.

        Raises:
            VLLMValidationError: at once, for a bad ``sgl_*`` key in ``extra_args`` (a 400 over HTTP).
        """
        try:
            options = RequestOptions.parse(sampling_params.extra_args, self.sgl_config)
        except ValueError as error:
            raise VLLMValidationError(str(error), parameter="vllm_xargs") from None
        return self._generate(prompt, sampling_params, request_id, options, kwargs)

    async def _generate(
        self, prompt: Any, params: SamplingParams, request_id: str, options: RequestOptions,
        kwargs: dict[str, Any],
    ) -> AsyncGenerator[RequestOutput, None]:  # fmt: skip
        about = context.current.get() or context.RequestContext()
        try:
            outcome = await self._walk(prompt, params, request_id, options, about, kwargs)
        except RequestAborted:
            yield abort_output(request_id, prompt)
            return
        if about.report is None:  # beam search makes many engine requests of one client request
            metrics().observe(outcome.report)
        about.report = outcome.report
        if isinstance(outcome.decision, Exit) and not self.sgl_config.shadow:
            output = exit_output(request_id, prompt, outcome.decision.answer)
            output.sgl = outcome.report
            yield output
            return
        pruned = isinstance(outcome.decision, Prune) and outcome.prompt is not prompt
        if pruned:  # vLLM would measure the room for an answer from the pruned prompt
            params = params.clone()
            params.max_tokens = outcome.max_tokens
        given = outcome.prompt if pruned else prompt
        async with aclosing(super().generate(given, params, request_id, **kwargs)) as outputs:
            async for output in outputs:
                if pruned:
                    output.prompt_token_ids = prompt["prompt_token_ids"]
                output.sgl = outcome.report
                yield output

    async def _walk(
        self, prompt: Any, params: SamplingParams, request_id: str, options: RequestOptions,
        about: context.RequestContext, kwargs: dict[str, Any],
    ) -> Outcome:  # fmt: skip
        pipeline = await self._pipeline()
        known = facts.read(prompt, params, about, kwargs.get("lora_request"), self.model_config.max_model_len)
        request = None if known.bypass else self._request(prompt, params, request_id, known, options, kwargs)
        self._guiding.add(request_id)
        try:
            return await pipeline.walk(request, known, options)
        finally:
            self._guiding.discard(request_id)

    def _request(
        self, prompt: Any, params: SamplingParams, request_id: str, known: Facts, options: RequestOptions,
        kwargs: dict[str, Any],
    ) -> GuideRequest:  # fmt: skip
        return GuideRequest(
            id=request_id,
            prompt=prompt,
            visual_tokens=known.visual_tokens,
            params=params,
            max_tokens=known.max_tokens,
            query_rows=options.query_rows,
            priority=kwargs.get("priority", 0),
        )

    async def get_supported_tasks(self) -> Any:
        # A server asks before it serves: a guide that cannot work fails here. So does every request, and
        # among them those that measure costs for the pipeline.
        if asyncio.current_task() is not self._guide_ready:
            await self._pipeline()
        return await super().get_supported_tasks()

    async def _pipeline(self) -> Pipeline:
        """The walk, with the capture installed in the small engine's workers."""
        if self._guide_ready is None:
            self._guide_ready = asyncio.create_task(self._install())
        return await asyncio.shield(self._guide_ready)

    async def _install(self) -> Pipeline:
        rows = await small_engine.attention_rows(self._small)
        self._guide = SmallModelGuide(self._small, rows, self.sgl_config.guide_timeout)
        await self._guide.warm_up()
        if self.sgl_config.break_even == "auto":
            self.costs = await calibration.measure(self, super().generate, self._guide, self.sgl_config)
        guide = self._guide if self.wrap_guide is None else self.wrap_guide(self._guide)
        return Pipeline(self.sgl_config, guide, TopImportance(), rewrite, self.costs)

    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        ids = [request_id] if isinstance(request_id, str) else list(request_id)
        for guided in self._guiding.intersection(ids):
            await self._guide.abort(guided)
        await super().abort(ids, internal)

    def get_num_unfinished_requests(self) -> int:
        return super().get_num_unfinished_requests() + len(self._guiding)

    def shutdown(self, timeout: float | None = None) -> None:
        if self._ended:  # and called again by __del__, at the interpreter's end without modules
            return
        self._ended = True
        small = getattr(self, "_small", None)
        if small is None or sys.is_finalizing():  # no new threads at the interpreter's end
            super().shutdown(timeout)
            if small is not None:
                small.shutdown(timeout)
            return
        # Side by side: each waits some seconds for its processes.
        both = threading.Thread(target=small.shutdown, args=(timeout,), name="sgl-small-shutdown")
        both.start()
        super().shutdown(timeout)
        both.join()


def _refuse_unsupported(config: VllmConfig, client_count: int | None) -> None:
    refuse_replicas(client_count, config.parallel_config.data_parallel_size)
    if getattr(config.lora_config, "enable_tower_connector_lora", False):
        raise ValueError(
            "SGL does not work with --enable-tower-connector-lora: vLLM derives an adapter's vision tokens "
            "from the placeholders, which are pruned. Drop the flag (adapters of the decoder work), or serve "
            "without --sgl-small"
        )
