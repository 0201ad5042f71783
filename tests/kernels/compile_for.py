"""Compile every kernel, as its launcher calls it, for GPUs that are not there.

    python tests/kernels/compile_for.py 80 90 100

Triton brings its own ptxas. A driver that only knows the GPU's kind stands in for CUDA, and a launch
stops after compilation.
"""

import sys
import warnings

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from vllm_sgl.kernels.attention_mass.kernel import attention_mass
from vllm_sgl.kernels.gather_visual.kernel import gather_visual

#: Shared memory that one program may use, bytes (CUDA C programming guide, compute capabilities).
SHARED_MEMORY = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}


class Driver:
    """Each compute capability is a device of its own, because Triton keeps one target for a device."""

    capability = 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


def main(capabilities: list[int]) -> None:
    warnings.simplefilter("ignore")  # of Triton, about its own defaults
    driver = Driver()
    triton.runtime.driver.set_active(driver)
    launch = JITFunction.run

    def compile_only(self, *args, grid, warmup, **kwargs):
        kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
        shared = kernel.metadata.shared
        print(f"  {self.__name__}: {len(kernel.asm['cubin'])} bytes, shared {shared}", flush=True)
        most = SHARED_MEMORY[driver.capability]
        assert shared <= most, f"{self.__name__} needs {shared} bytes of shared memory; there are {most}"
        return kernel

    JITFunction.run = compile_only
    for driver.capability in capabilities:
        compile_all(driver.capability)


def compile_all(capability: int) -> None:
    for dtype, heads, kv_heads, head_dim, lanes, rows in (
        (torch.bfloat16, 16, 8, 128, 8, 64),  # InternVL2-2B
        (torch.bfloat16, 16, 8, 128, 1, 1),
        (torch.float16, 14, 2, 64, 1, 64),  # InternVL2-1B
        (torch.bfloat16, 4, 4, 256, 1, 64),
        (torch.float32, 4, 4, 64, 1, 64),
        (torch.float32, 4, 4, 64, 1, 1),
    ):
        print(f"sm_{capability}, {dtype}, heads {heads}/{kv_heads} of {head_dim}, {rows} rows, {lanes} lanes")
        mass(dtype, heads, kv_heads, head_dim, lanes, rows)
    slots = torch.zeros(4, dtype=torch.int64)
    gather_visual(torch.zeros(5, 2048, dtype=torch.bfloat16), slots)
    gather_visual(torch.zeros(5, 2048, dtype=torch.float16), slots, torch.bfloat16)


def mass(dtype, heads, kv_heads, head_dim, lanes, rows) -> None:
    requests, columns = 2, 3328
    cache = torch.zeros(8, kv_heads, 16, 2 * head_dim, dtype=dtype)
    short = torch.zeros(requests + 1, dtype=torch.int32)
    attention_mass(
        torch.zeros(requests * rows, heads, head_dim, dtype=dtype), cache[..., :head_dim],
        torch.zeros(requests, 256, dtype=torch.int32), short[:-1], short, short[:-1].long(),
        torch.zeros(columns, dtype=torch.int64), short.long(), head_dim**-0.5,
        torch.zeros(lanes, columns), torch.zeros(requests, dtype=torch.float64), rows,
    )  # fmt: skip


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
