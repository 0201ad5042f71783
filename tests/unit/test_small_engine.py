"""The small engine's config follows the large one's."""

import pytest
from vllm import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext

from vllm_sgl.config import SGLConfig
from vllm_sgl.host.engine_args import use_sgl
from vllm_sgl.host.small_engine import small_config


@pytest.mark.parametrize(("threads", "executor"), [("nobind", "uni"), ("0-1", "mp")])
def test_a_cpu_engine_has_a_worker_process_only_to_bind_its_threads(
    qwen2_pair, monkeypatch, threads, executor
):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", threads)
    small, large = map(str, qwen2_pair)
    arguments = AsyncEngineArgs(model=large, trust_remote_code=True, dtype="float32", max_model_len=512)
    sgl = SGLConfig.parse({"small": small})
    use_sgl(arguments, sgl)
    config = arguments.create_engine_config(UsageContext.ENGINE_CONTEXT)
    assert config.parallel_config.distributed_executor_backend == "mp"  # vLLM's own choice
    parallel = small_config(config, sgl).parallel_config
    assert parallel.distributed_executor_backend == executor
