"""Models that cost next to nothing, but take real tiles."""

from dataclasses import replace

from benchmarks.support.pair import Pair
from tools.tiny_internvl import TinySpec

#: Width and height that give twelve tiles and a thumbnail.
IMAGE = 1792, 1344

_SMALL = TinySpec(
    "small", "qwen2", hidden=64, layers=1, heads=2, kv_heads=2, head_dim=32, intermediate=128, vit_hidden=32,
    vit_layers=1, vit_heads=2, image_size=448, max_dynamic_patch=12, max_position_embeddings=8192, seed=1,
)  # fmt: skip

PAIR = Pair(
    large=replace(_SMALL, name="large", seed=2), small=_SMALL, dtype="bfloat16", image=IMAGE,
    max_model_len=4096, large_kv=128 << 20, small_kv=128 << 20, max_num_seqs=8,
    flags=("--enforce-eager", "--mm-processor-cache-gb=1"), start_seconds=300, break_even="off",
)  # fmt: skip
