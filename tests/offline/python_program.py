"""A Python program that serves as Ray Serve LLM does: the config is made in another process, and comes as a
pickle; the engine is a class derived from ``AsyncLLM``, called by its constructor in a running event loop.

    python -m tests.offline.python_program SMALL LARGE

Prints what became of one request about an image.
"""

import asyncio
import json
import multiprocessing
import sys


def make_config(small, large):
    """In the process that has the hardware. Nothing of vllm_sgl is imported by name."""
    from vllm import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    arguments = AsyncEngineArgs(
        large, trust_remote_code=True, enforce_eager=True, dtype="float32", max_model_len=640, max_num_seqs=4,
        kv_cache_memory_bytes=64 << 20, limit_mm_per_prompt={"image": 1}, distributed_executor_backend="mp",
        additional_config={"sgl": {"small": small, "break_even": "off", "retention": 0.25}},
    )  # fmt: skip
    return arguments, arguments.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)


def counting_tokens(engine_class):
    """A class of the program's own around the engine's: both must have their say."""

    class Counting(engine_class):
        tokens = 0

        async def generate(self, *args, **kwargs):
            async for output in super().generate(*args, **kwargs):
                self.tokens = sum(len(answer.token_ids) for answer in output.outputs)
                yield output

    return Counting


async def serve(arguments, config):
    from vllm import SamplingParams
    from vllm.renderers.inputs.preprocess import parse_model_prompt
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.executor.abstract import Executor

    from tests.support.images import random_image
    from tests.support.rendering import chat_prompt

    engine = counting_tokens(AsyncLLM)(
        vllm_config=config, executor_class=Executor.get_class(config), log_stats=True,
        log_requests=arguments.enable_log_requests, stat_loggers=None,
    )  # fmt: skip
    try:
        tasks = await engine.get_supported_tasks()
        prompt = {"prompt": chat_prompt("Who?", 1), "multi_modal_data": {"image": random_image(0, 300, 200)}}
        parsed = parse_model_prompt(engine.model_config, prompt)
        (rendered,) = await engine.renderer.render_cmpl_async([parsed])
        async for output in engine.generate(rendered, SamplingParams(temperature=0, max_tokens=5), "1"):
            final = output
        report = final.sgl
        return {
            "tasks": list(tasks), "decision": report.decision, "kept": report.kept_tokens,
            "visual": report.visual_tokens, "answered": len(final.outputs[0].token_ids),
            "counted": engine.tokens,
        }  # fmt: skip
    finally:
        engine.shutdown()


def main():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        arguments, config = pool.apply(make_config, sys.argv[1:3])
    print("RESULT", json.dumps(asyncio.run(serve(arguments, config))))


if __name__ == "__main__":
    main()
