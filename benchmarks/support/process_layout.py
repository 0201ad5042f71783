"""How the processes and threads of an engine are laid out on a CPU.

vLLM gives the model of a CPU engine a process of its own. Engine and worker wait for each other by polling,
and OpenMP threads that wait for their like spin: both take time from whatever else runs on the same cores.
SGL's two engines share the cores and do without either (`vllm_sgl/host/start/cpu.py`). So that a comparison
shows the method and not the layout, the servers that SGL is compared with are laid out alike; vLLM's own
layout is measured beside them.

On a GPU there is one layout, vLLM's. Threads are bound to cores in neither: all servers use as many.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProcessLayout:
    """about: one line for reports. flags: of ``vllm serve``. environment: of its process."""

    about: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


DEFAULT = ProcessLayout(
    "vLLM's default: a worker process that polls, and OpenMP threads that spin while they wait"
)
LIKE_SGL = ProcessLayout(
    "like SGL: the model runs in its engine's core process, and OpenMP threads that wait sleep",
    # By its name: vLLM turns "uni" into "mp" on CPUs.
    ("--distributed-executor-backend=vllm.v1.executor.uniproc_executor.UniProcExecutor",),
    {"OMP_WAIT_POLICY": "PASSIVE"},
)
