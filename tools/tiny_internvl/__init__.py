"""Small random-weight InternVL checkpoints, made on the spot for tests, demos and benchmarks."""

from .checkpoint import build, build_pair
from .spec import DECODER_PAIRS, LARGE_LLAMA, LARGE_QWEN2, SMALL_LLAMA, SMALL_QWEN2, TinyShape, TinySpec

__all__ = [
    "DECODER_PAIRS",
    "LARGE_LLAMA",
    "LARGE_QWEN2",
    "SMALL_LLAMA",
    "SMALL_QWEN2",
    "TinyShape",
    "TinySpec",
    "build",
    "build_pair",
]
