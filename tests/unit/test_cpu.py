"""Two engines share the cores of one CPU."""

import os

import pytest
from vllm import AsyncEngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from vllm_sgl.config import SGLConfig
from vllm_sgl.engine.carried import use_sgl
from vllm_sgl.engine.start import small_config
from vllm_sgl.host.start.cpu import executor_class, share_cores


@pytest.mark.parametrize(("threads", "executor"), [("nobind", UniProcExecutor), ("0-1", MultiprocExecutor)])
def test_an_engine_has_a_worker_process_only_to_bind_its_threads(qwen2_pair, monkeypatch, threads, executor):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", threads)
    small, large = map(str, qwen2_pair)
    arguments = AsyncEngineArgs(model=large, trust_remote_code=True, dtype="float32", max_model_len=512)
    sgl = SGLConfig.parse({"small": small})
    use_sgl(arguments, sgl)
    config = arguments.create_engine_config(UsageContext.ENGINE_CONTEXT)
    assert config.parallel_config.distributed_executor_backend == "mp"  # vLLM's own choice
    assert executor_class(small_config(config, sgl)) is executor
    assert executor_class(config) is executor


def test_engines_of_many_workers_keep_them(qwen2_pair, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    large = str(qwen2_pair[1])
    arguments = AsyncEngineArgs(model=large, trust_remote_code=True, dtype="float32", max_model_len=512)
    arguments.tensor_parallel_size = 2
    config = arguments.create_engine_config(UsageContext.ENGINE_CONTEXT)
    assert executor_class(config) is MultiprocExecutor


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
    share_cores()
    assert {name: os.environ[name] for name in names if name in os.environ} == after
