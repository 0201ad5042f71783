"""Both engines inside the test process: quick to start, and open to inspection.

The guide, the pipeline and the rewriting are the project's own, unmodified; only ``AsyncLLM`` is replaced
by :class:`InProcessEngine`, which steps vLLM's synchronous engine from whichever coroutine waits.
"""

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm import EngineArgs, SamplingParams
from vllm.renderers import ChatParams, renderer_from_config
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.v1.engine.llm_engine import LLMEngine

from tests.support import (
    gated_delta,  # noqa: F401 (float32 for gated delta nets)
    started,
)
from tests.support.images import data_url, random_image, video_url
from tests.support.rendering import chat_prompt
from tools.reference import reference
from vllm_sgl.config import QueryRows, SGLConfig
from vllm_sgl.core import GuideRequest, GuideResult, Outcome
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.start import small_config
from vllm_sgl.families import family_of, tiles_of
from vllm_sgl.guide.build import guide_over
from vllm_sgl.guide.local.guide import LocalGuide
from vllm_sgl.host.render.processor_cache import keeping_pixels
from vllm_sgl.host.request.output import abort_output
from vllm_sgl.model.scheduler import charge_what_is_encoded
from vllm_sgl.pair.verdict import judge
from vllm_sgl.pipeline import Pipeline
from vllm_sgl.prune.late import given_prompt
from vllm_sgl.prune.registry import policy
from vllm_sgl.request.client_request import Asked
from vllm_sgl.request.facts import FactsReader
from vllm_sgl.request.options import RequestOptions
from vllm_sgl.visual.items import placed_items

_IDS = itertools.count()
_CHAT = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})

# vLLM compiles small helpers (ranks of log-probabilities), anew for every batch size: seconds each time
# that test nothing of ours. Servers started by other tests are processes of their own and do compile.
torch.compiler.set_stance("force_eager")


class InProcessEngine:
    """``AsyncLLM``'s methods that the guide uses, over vLLM's ``LLMEngine`` in this process."""

    errored = False

    def __init__(self, vllm_config: Any) -> None:
        started.count("engines in a test process")
        self.engine = LLMEngine.from_vllm_config(vllm_config, disable_log_stats=True)
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self._outputs: defaultdict[str, deque] = defaultdict(deque)

    @property
    def runner(self) -> Any:
        return self.engine.model_executor.driver_worker.worker.model_runner

    @property
    def recorder(self) -> Any:
        """The guide's memory inside the worker."""
        return self.engine.model_executor.driver_worker.worker._sgl_recorder

    @property
    def scheduler(self) -> Any:
        return self.engine.engine_core.engine_core.scheduler

    def get_tokenizer(self) -> Any:
        return self.engine.get_tokenizer()

    async def collective_rpc(self, method: str, timeout: float | None = None, args: tuple = ()) -> list:
        return self.engine.collective_rpc(method, timeout, args)

    async def generate(self, prompt: Any, params: SamplingParams, request_id: str, priority: int = 0) -> Any:
        waiting = self._outputs[request_id]
        self.engine.add_request(request_id, prompt, params, priority=priority)
        try:
            while True:
                # Everybody else gets to add requests first, so that they share the next step's batch.
                await asyncio.sleep(0)
                if not waiting:
                    for output in self.engine.step():
                        self._outputs[output.request_id].append(output)
                while waiting:
                    output = waiting.popleft()
                    yield output
                    if output.finished:
                        return
        except (asyncio.CancelledError, GeneratorExit):
            await self.abort([request_id])
            raise
        finally:
            del self._outputs[request_id]

    async def abort(self, request_ids: list[str]) -> None:
        self.engine.abort_request(request_ids)
        for request_id in set(request_ids) & set(self._outputs):
            self._outputs[request_id].append(abort_output(request_id, {"prompt_token_ids": []}))

    def shutdown(self) -> None:
        self.engine.engine_core.shutdown()


class Engines:
    """A guided pair. ``large`` is None where only the guide is wanted (``with_large=False``)."""

    def __init__(
        self, pair: tuple[Path, Path], *, sgl: dict[str, Any] | None = None, with_large: bool = True,
        small_args: dict[str, Any] | None = None, **large_args: Any,
    ) -> None:  # fmt: skip
        small_args = {"kv_cache_memory_bytes": 16 << 20, **(small_args or {})}
        self.config = SGLConfig(small=str(pair[0]), small_args=small_args, **(sgl or {}))
        arguments = {
            "trust_remote_code": True,
            "dtype": "float32",
            "max_model_len": 640,
            "max_num_seqs": 8,
            "enforce_eager": True,
            "mm_processor_cache_gb": 0.1,
            "kv_cache_memory_bytes": 32 << 20,
            **large_args,
        }
        engine_args = EngineArgs(str(pair[1]), **arguments)
        use_sgl(engine_args, self.config)
        with pytest.MonkeyPatch.context() as patch:
            # Engine core and worker in this process; read while configs are made and engines built.
            patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            large_config = engine_args.create_engine_config()
            charge_what_is_encoded(large_config)
            small = small_config(large_config, self.config)
            self.verdict = judge(large_config.model_config, small.model_config)
            model = large_config.model_config
            self.reader = FactsReader.of(family_of(model), model, self.verdict.same_tokens)
            with keeping_pixels(large_config) as keep:
                self.large = InProcessEngine(large_config) if with_large else None
                self.renderer = (
                    self.large.engine.renderer if with_large else renderer_from_config(large_config)
                )
                keep(self.renderer)
            # After the large one: vLLM makes the groups of a mixture of experts once in a process, and only
            # where its first model is one.
            self.small = InProcessEngine(small)
        local = LocalGuide(self.small, timeout=120)
        self.guide = guide_over(local, self.verdict, self.small.vllm_config, self.renderer)
        with ThreadPoolExecutor(1) as pool:  # a loop of its own: the caller may be in one
            pool.submit(asyncio.run, self.guide.start()).result()
        self.tiles = tiles_of(large_config.model_config)
        self.rewrite = partial(given_prompt, tiles=self.tiles)
        self.pipeline = Pipeline(self.config, self.guide, policy, self.rewrite)
        self.reference = reference(pair[0])
        self.large_reference = reference(pair[1])

    def render(self, question: str, *sizes: tuple[int, int], seed: int = 0) -> Any:
        """A one-turn chat about random images of these sizes (width, height), rendered by vLLM."""
        images = [random_image(seed + i, *size) for i, size in enumerate(sizes)]
        prompt: dict[str, Any] = {"prompt": chat_prompt(question, len(images))}
        if images:
            prompt["multi_modal_data"] = {"image": images}
        parsed = parse_model_prompt(self.small.model_config, prompt)
        (rendered,) = self.renderer.render_cmpl([parsed], self.renderer.default_cmpl_tok_params)
        return rendered

    def chat_text(self, messages: list[dict[str, Any]]) -> str:
        """An OpenAI conversation as the chat template writes it, each image a placeholder."""
        _, prompt = self.renderer.render_messages(messages, _CHAT)
        return prompt["prompt"]

    def render_chat(self, messages: list[dict[str, Any]]) -> Any:
        """An OpenAI conversation, rendered by vLLM."""
        tokens = self.renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
        _, (rendered,) = self.renderer.render_chat([messages], _CHAT, tokens)
        return rendered

    async def walk(
        self, prompt: Any, *, max_tokens: int = 8, id: str | None = None, pipeline: Pipeline | None = None,
        **xargs: Any,
    ) -> Outcome:  # fmt: skip
        """What the server does with a rendered prompt until it is decided; xargs are ``sgl_*`` keys."""
        params = SamplingParams(temperature=0, max_tokens=max_tokens, extra_args=xargs)
        self.reader.check(prompt)
        facts = self.reader.read(prompt, params, Asked(), None)
        id = id or f"request-{next(_IDS)}"
        options = RequestOptions.parse(params.extra_args, self.config)
        items = self.reader.items(prompt)
        request = GuideRequest(id, prompt, items, params, facts.max_tokens, options.query_rows)
        return await (pipeline or self.pipeline).walk(request, facts, options)

    async def walk_to_the_end(
        self, messages: list[dict[str, Any]], max_tokens: int, **xargs: Any
    ) -> tuple[Outcome, str]:
        """What is decided of a conversation, and the text of the large model's answer or of the exit's."""
        outcome = await self.walk(self.render_chat(messages), max_tokens=max_tokens, **xargs)
        if outcome.answer is not None:
            return outcome, outcome.answer.text
        tokens, _ = await self.answer_large(outcome.prompt, max_tokens)
        return outcome, self.renderer.get_tokenizer().decode(tokens, skip_special_tokens=True)

    async def look(
        self, prompt: Any, *, max_tokens: int = 8, id: str | None = None,
        query_rows: QueryRows | None = None, **params: Any,
    ) -> GuideResult:  # fmt: skip
        """The guide alone; params are the client's ``SamplingParams``."""
        request = self.request(prompt, max_tokens=max_tokens, id=id, query_rows=query_rows, **params)
        return await self.guide.look(request, max_tokens)

    def request(
        self, prompt: Any, *, max_tokens: int = 8, id: str | None = None,
        query_rows: QueryRows | None = None, **params: Any,
    ) -> GuideRequest:  # fmt: skip
        """What the guide is asked about a prompt; params as in :meth:`look`."""
        client = SamplingParams(temperature=0, **params)
        items = self.reader.items(prompt)
        rows = query_rows or self.config.query_rows
        return GuideRequest(id or f"request-{next(_IDS)}", prompt, items, client, max_tokens, rows)

    async def answer_large(self, prompt: Any, max_tokens: int = 8) -> tuple[list[int], torch.Tensor]:
        """The large model's greedy tokens and their log-probabilities [n]."""
        params = SamplingParams(temperature=0, max_tokens=max_tokens, logprobs=0)
        completion = (await self._run_large(prompt, params)).outputs[0]
        tokens = list(completion.token_ids)
        steps = zip(completion.logprobs, tokens, strict=True)
        return tokens, torch.tensor([step[token].logprob for step, token in steps])

    async def cached_tokens(self, prompt: Any) -> int:
        """How many of the prompt's tokens the large engine finds in its prefix cache."""
        params = SamplingParams(temperature=0, max_tokens=1)
        return (await self._run_large(prompt, params)).num_cached_tokens

    async def run_small(self, prompt: Any, params: SamplingParams) -> Any:
        """The small model as a plain vLLM engine."""
        id = f"small-{next(_IDS)}"
        return [output async for output in self.small.generate(prompt, params, id)][-1]

    async def known_to_small(self, work: Coroutine[Any, Any, Any]) -> tuple[Any, list[int]]:
        """What comes of the work, and how many prompt tokens of each pass through the small engine in it
        were found in that one's prefix cache."""
        found: list[int] = []
        generate = self.small.generate

        async def noting(*args: Any, **kwargs: Any) -> Any:
            async for output in generate(*args, **kwargs):
                if output.finished:
                    found.append(output.num_cached_tokens)
                yield output

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.small, "generate", noting)
            return await work, found

    async def _run_large(self, prompt: Any, params: SamplingParams) -> Any:
        id = f"large-{next(_IDS)}"
        return [output async for output in self.large.generate(prompt, params, id)][-1]

    def shutdown(self) -> None:
        self.small.shutdown()
        if self.large is not None:
            self.large.shutdown()


def inputs(prompt: Any) -> tuple[list[int], list[Any]]:
    """Token ids and each image and video of a rendered prompt, as the family's reference takes it."""
    items = [prompt["mm_kwargs"][item.modality][item.index] for item in placed_items(prompt)]
    return prompt["prompt_token_ids"], [_image(item) for item in items]


def _image(item: Any) -> Any:
    """Tiles alone where they are all there is to say; else every field by name."""
    if "image_num_patches" in item or "video_num_patches" in item:
        (pixels,) = (element.data for name, element in item.items() if name.startswith("pixel_values"))
        return pixels
    return {name: element.data for name, element in item.items()}


def user(text: str, *media: Any) -> dict[str, Any]:
    """A user turn of an OpenAI conversation about images, and videos as lists of frames."""
    parts = [
        {"type": "video_url", "video_url": {"url": video_url(item)}}
        if isinstance(item, list)
        else {"type": "image_url", "image_url": {"url": data_url(item)}}
        for item in media
    ]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
