"""The small engine's config follows the large one's, and both share the processor."""

import os

import pytest
from vllm import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext

from vllm_sgl.config import SGLConfig
from vllm_sgl.host.engine_args import use_sgl
from vllm_sgl.host.small_engine import share_cpu, small_config


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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "PASSIVE"}),
        (
            {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "ACTIVE"},
            {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "ACTIVE"},
        ),
        ({"VLLM_CPU_OMP_THREADS_BIND": "0|1"}, {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}),
    ],
)
def test_threads_of_engines_on_shared_cores_sleep_while_they_wait(monkeypatch, before, after):
    names = ("VLLM_CPU_OMP_THREADS_BIND", "OMP_WAIT_POLICY")
    for name in names:
        monkeypatch.setenv(name, before.get(name, ""))  # remembered, so that it is restored
        if name not in before:
            monkeypatch.delenv(name)
    share_cpu()
    assert {name: os.environ[name] for name in names if name in os.environ} == after
