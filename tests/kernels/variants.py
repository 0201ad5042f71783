"""Which variants of attention_mass Triton would compile: after its warm-up, batches of any shape need none.

    python -m tests.kernels.variants

Variants are counted by Triton's own cache key, which holds every constant, type and divisibility of a
launch. Nothing is compiled: a GPU that is not there is asked for the key alone.
"""

import sys
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace

import torch
import triton
from triton.runtime.jit import JITFunction

from tests.kernels.compile_for import Driver
from vllm_sgl.kernels.attention_mass import decode, rows, tiles
from vllm_sgl.kernels.attention_mass.every_variant import run_every_variant
from vllm_sgl.kernels.attention_mass.kernel import attention_mass

CAPABILITY = 90
BLOCK_SIZE = 16


@dataclass(frozen=True)
class Layer:
    """fused: the query lies inside a qkv projection."""

    heads: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    lanes: int
    fused: bool

    def key_cache(self) -> torch.Tensor:
        cache = torch.zeros(4, self.kv_heads, BLOCK_SIZE, 2 * self.head_dim, dtype=self.dtype)
        return cache[..., : self.head_dim]

    def query(self, tokens: int) -> torch.Tensor:
        width = self.heads + 2 * self.kv_heads * self.fused
        return torch.zeros(tokens, width, self.head_dim, dtype=self.dtype)[:, : self.heads]


LAYERS = [
    Layer(16, 8, 128, torch.bfloat16, lanes=8, fused=True),  # InternVL2-2B
    Layer(16, 8, 128, torch.bfloat16, lanes=8, fused=False),  # Qwen3: normed queries
    Layer(14, 2, 64, torch.bfloat16, lanes=8, fused=True),  # InternVL2-1B
    Layer(7, 1, 64, torch.float16, lanes=1, fused=True),  # the same on two GPUs
    Layer(32, 32, 96, torch.bfloat16, lanes=8, fused=True),  # InternVL2-4B
    Layer(3, 1, 72, torch.float32, lanes=1, fused=True),  # rows of no multiple of 16 elements
    Layer(3, 1, 72, torch.float32, lanes=1, fused=False),
]
#: (requests, counted rows of each, query rows of each, pages of the block table, entries of the index)
BATCHES = [
    (requests, *rows, pages, index)
    for requests, rows, pages, index in product(
        (1, 2, 3, 16, 33, 300), ((1, 1), (2, 2), (7, 16), (15, 15)), (1, 5, 2048), (1, 7, 16, 3328)
    )
]


def launch(layer: Layer, requests: int, counted: int, queries: int, pages: int, index: int) -> None:
    """A batch as the guide describes it; what tensors hold is not looked at."""
    starts = torch.zeros(requests + 2, dtype=torch.int32)
    attention_mass(
        layer.query(requests * queries), layer.key_cache(),
        torch.zeros(requests, pages, dtype=torch.int32), torch.zeros(requests, dtype=torch.int32),
        starts[1:],  # not aligned
        torch.zeros(requests, dtype=torch.int64), torch.zeros(index, dtype=torch.int64),
        torch.zeros(requests + 1, dtype=torch.int64), layer.head_dim**-0.5,
        torch.zeros(layer.lanes, index), torch.zeros(requests, dtype=torch.float64), counted,
    )  # fmt: skip


def main() -> None:
    asked = stand_in()
    for layer in LAYERS:
        asked.clear()
        run_every_variant(layer.key_cache(), layer.heads, layer.lanes)
        warm = set(asked)
        asked.clear()
        for batch in BATCHES:
            launch(layer, *batch)
            new = set(asked) - warm
            assert not new, f"{layer}, batch {batch} compiles {[name for name, _ in new]}"
        names = sorted(name for name, _ in asked)
        print(f"{layer}: {len(warm)} variants, of which batches used {len(asked)}")
        # Every one is needed: else this would have tried too few batches, or the warm-up too many variants.
        needed = 3 * ["column_sums", "decode_scores", "decode_sums", "row_statistics"]
        assert names == sorted(needed), names


def stand_in() -> set[tuple[str, str]]:
    """Where variants (kernel, cache key) go that are asked for from now on."""
    driver, asked = Driver(), set()
    driver.capability = CAPABILITY
    triton.runtime.driver.set_active(driver)
    run = JITFunction.run

    def record(self, key, signature, device, *_):
        return SimpleNamespace(key=key)

    def run_without_launching(self, *args, grid, warmup, **kwargs):
        asked.add((self.__name__, run(self, *args, grid=grid, warmup=True, **kwargs).key))

    JITFunction._do_compile, JITFunction.run = record, run_without_launching
    gpu = SimpleNamespace(type="cuda")
    torch.cuda.get_device_properties = lambda _: SimpleNamespace(multi_processor_count=132)  # an H100's
    for module in (rows, decode):
        module.choose_splits = lambda programs, capacity, block_n, _: tiles.choose_splits(
            programs, capacity, block_n, gpu
        )
    return asked


if __name__ == "__main__":
    sys.exit(main())
