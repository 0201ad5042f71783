"""Two engines on the cores of one CPU: vLLM takes it for granted that an engine is alone there."""

import logging
import os

from vllm.config import VllmConfig
from vllm.platforms import current_platform
from vllm.v1.executor import Executor

logger = logging.getLogger("vllm.vllm_sgl.cpu")

#: vLLM's variable: which cores the threads of its CPU workers are bound to.
_BIND = "VLLM_CPU_OMP_THREADS_BIND"
_SHARED_CORES = {_BIND: "nobind", "OMP_WAIT_POLICY": "PASSIVE"}


def share_cores() -> None:
    """Let both engines run on all cores: bound to cores, each would wait for the other's threads.

    Threads that wait for their like then have to sleep: OpenMP's spin, on cores that the other engine needs.
    Acts on processes that are started later, if they are not forked: OpenMP reads the policy once. Does
    nothing where the user bound the threads.
    """
    if not current_platform.is_cpu() or os.environ.get(_BIND, "nobind") != "nobind":
        return
    ours = {name: value for name, value in _SHARED_CORES.items() if name not in os.environ}
    os.environ.update(ours)
    if ours:
        named = " ".join(f"{name}={value}" for name, value in ours.items())
        logger.info("SGL: %s, so that two engines share the cores", named)


def executor_class(config: VllmConfig) -> type[Executor]:
    """How an engine runs its model: as vLLM says, but on shared cores in the engine's core process.

    vLLM gives the model of a CPU engine a process of its own, whose environment binds its threads; unbound,
    there is nothing to bind. The two processes wait for each other by polling, and an idle worker polls for
    another second: time that the other engine's threads lack where cores are few. Changes ``config`` too.
    """
    parallel = config.parallel_config
    unbound = current_platform.is_cpu() and os.environ.get(_BIND) == "nobind"
    if unbound and parallel.world_size == 1 and parallel.distributed_executor_backend == "mp":
        parallel.distributed_executor_backend = "uni"
        logger.info("SGL: %s runs in its engine's core process, without a worker", config.model_config.model)
    return Executor.get_class(config)
