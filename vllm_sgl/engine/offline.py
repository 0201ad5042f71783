"""``vllm_sgl.LLM``: vLLM's offline ``LLM``, guided."""

import asyncio
import atexit
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

import vllm

from vllm_sgl.config import REQUEST_PREFIX, SGLConfig
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.client import SGLAsyncLLM
from vllm_sgl.guide.base import Guide
from vllm_sgl.host.start.llm import building_engine
from vllm_sgl.prune.registry import check_policies
from vllm_sgl.request import client_request

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.engine.llm_engine:LLMEngine.add_request(request_id, prompt, params)",
    "vllm.v1.engine.llm_engine:LLMEngine.step",
    "vllm.v1.engine.llm_engine:LLMEngine.abort_request(request_ids)",
    "vllm.v1.engine.llm_engine:LLMEngine.has_unfinished_requests",
    "vllm.v1.engine.llm_engine:LLMEngine.collective_rpc(method, timeout, args, kwargs)",
    "vllm.engine.arg_utils:EngineArgs.create_engine_config(usage_context)",
    "vllm.engine.arg_utils:EngineArgs.disable_log_stats",
)


class LLM(vllm.LLM):
    """vLLM's ``LLM`` for a large vision-language model that a small one guides.

    Outputs carry ``.sgl``, a :class:`vllm_sgl.core.Report`: the values that an HTTP client sees, plus
    ``importance`` (one float32 tensor [visual tokens] per image) and ``kept`` (one ascending int64 tensor
    of kept indices per image). One request's settings go in ``SamplingParams(extra_args={"sgl_...": ...})``,
    ``sgl_profile`` among them, the name of one of ``sgl_profiles``.

    Args:
        model: the large model.
        sgl_small: the small model; ``vllm-sgl pairs`` says how it would guide.
        wrap_guide: for importance from elsewhere. Given the small model's guide, returns the
            :class:`vllm_sgl.guide.base.Guide` to ask instead; it may pass requests on.
        kwargs: any other ``sgl_*`` setting of :class:`vllm_sgl.SGLConfig`, and anything vLLM's ``LLM`` takes.

    Raises:
        ValueError: for a bad setting, or a pair that cannot work together.
    """

    def __init__(
        self,
        model: str,
        *,
        sgl_small: str,
        wrap_guide: Callable[[Guide], Guide] | None = None,
        **kwargs: Any,
    ) -> None:
        ours = [key for key in kwargs if key.startswith(REQUEST_PREFIX)]
        settings = {key.removeprefix(REQUEST_PREFIX): kwargs.pop(key) for key in ours}
        config = SGLConfig.parse({"small": sgl_small, **settings})
        check_policies(config.policies)
        with building_engine(partial(_build, config, wrap_guide)):
            super().__init__(model, **kwargs)

    def beam_search(self, *args: Any, **kwargs: Any) -> Any:
        with client_request.asking(client_request.Asked(beam_search=True)):
            return super().beam_search(*args, **kwargs)

    def chat(self, *args: Any, **kwargs: Any) -> Any:
        with client_request.asking(_chatting(vllm.LLM.chat, self, *args, **kwargs)):
            return super().chat(*args, **kwargs)

    def enqueue_chat(self, *args: Any, **kwargs: Any) -> Any:
        with client_request.asking(_chatting(vllm.LLM.enqueue_chat, self, *args, **kwargs)):
            return super().enqueue_chat(*args, **kwargs)

    def shutdown(self) -> None:
        """Stop both engines now rather than when the object is collected."""
        self.llm_engine.shutdown()


def _chatting(method: Callable[..., Any], *args: Any, **kwargs: Any) -> client_request.Asked:
    """The client request behind a call of vLLM's method."""
    given = inspect.signature(method).bind(*args, **kwargs).arguments
    return client_request.Asked(tools=bool(given.get("tools")))


def _build(
    config: SGLConfig, wrap_guide: Callable[[Guide], Guide] | None, engine_args: Any, usage_context: Any
) -> "OfflineEngine":
    # The second engine starts while the first one's threads run: a fork would copy their locks.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    use_sgl(engine_args, config)
    vllm_config = engine_args.create_engine_config(usage_context)

    def make() -> SGLAsyncLLM:
        engine: SGLAsyncLLM = SGLAsyncLLM.from_vllm_config(
            vllm_config, usage_context=usage_context, disable_log_stats=engine_args.disable_log_stats
        )
        engine.wrap_guide = wrap_guide
        return engine

    return OfflineEngine(make)


class OfflineEngine:
    """The engine interface that vLLM's ``LLM`` needs, over an ``AsyncLLM`` in an event loop of its own.

    The walk of a request is then the very one of the server, small and large engine overlapping.
    Attributes that are not here are the ``AsyncLLM``'s; its coroutine methods are waited for.
    """

    def __init__(self, make: Callable[[], SGLAsyncLLM]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sgl-offline", daemon=True)
        self._thread.start()
        self._done: SimpleQueue[Any] = SimpleQueue()
        self._running: dict[str, Any] = {}
        self._engine: SGLAsyncLLM | None = None
        # Before the interpreter freezes daemon threads: __del__ would then wait for a loop that is still.
        atexit.register(_shut_down, weakref.ref(self))
        try:
            self._engine = self._wait(_call(make))
        except BaseException:
            self.shutdown()
            raise

    def add_request(self, request_id: str, prompt: Any, params: Any, **kwargs: Any) -> str:
        assert self._engine is not None
        # The caller is the client: nothing is hidden.
        with client_request.asking(client_request.current.get() or client_request.Asked()):
            outputs = self._engine.generate(prompt, params, request_id, **kwargs)
        self._running[request_id] = asyncio.run_coroutine_threadsafe(
            self._consume(request_id, outputs), self._loop
        )
        return request_id

    def step(self) -> list[Any]:
        """Outputs finished since the last step; waits for at least one.

        Raises:
            Exception: what a request failed with; the others are aborted then.
        """
        ready = [self._done.get()]
        while not self._done.empty():
            ready.append(self._done.get())
        outputs = []
        for request_id, result in ready:
            if self._running.pop(request_id, None) is None:
                continue  # aborted
            if isinstance(result, BaseException):
                self.abort_request(list(self._running))
                raise result
            outputs.append(result)
        return outputs

    def has_unfinished_requests(self) -> bool:
        return bool(self._running)

    def get_num_unfinished_requests(self) -> int:
        return len(self._running)

    def abort_request(self, request_ids: Sequence[str], internal: bool = False) -> None:
        for request_id in request_ids:
            if future := self._running.pop(request_id, None):
                future.cancel()

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        results: list[Any] = self.collective_rpc("apply_model", args=(func,))
        return results

    def shutdown(self) -> None:
        if self._loop.is_closed():
            return
        if self._engine is not None:
            self._wait(_call(self._engine.shutdown))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __del__(self) -> None:
        if getattr(self, "_loop", None) is None or self._loop.is_closed() or sys.is_finalizing():
            return
        self.shutdown()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._engine, name)
        if inspect.iscoroutinefunction(value):
            return lambda *args, **kwargs: self._wait(value(*args, **kwargs))
        return value

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _consume(self, request_id: str, outputs: Any) -> None:
        try:
            final = None
            async for output in outputs:
                final = output
            self._done.put((request_id, final))
        except Exception as error:
            self._done.put((request_id, error))


def _shut_down(reference: "weakref.ref[OfflineEngine]") -> None:
    if (engine := reference()) is not None:
        engine.shutdown()


async def _call(function: Callable[[], Any]) -> Any:
    return function()
