"""What is served and how much is asked of it.

On one 80 GB device both sides cannot be resident. So plain vLLM runs first, to its end, and the guided server
after it. Dummy weights make both starts short.
"""

from dataclasses import dataclass, replace

from benchmarks.support.pair import TRUE, Pair
from benchmarks.true_size import INTERNVL2, InternVLSize


@dataclass(frozen=True)
class Workload:
    """The pair, and how many clients, requests and rounds.

    burst: requests that arrive at once, of a server with default settings. default_flags: what such a server
        is told besides its models; nothing where there is a device.
    """

    pair: Pair
    clients: int
    latency_repeats: int
    requests: int
    rounds: int
    burst: int
    max_tokens: int = 32
    tokens_per_tile: int = 256
    default_flags: tuple[str, ...] = ()


GPU = Workload(TRUE, clients=16, latency_repeats=5, requests=32, rounds=2, burst=64)


def _shrunk(size: InternVLSize, layers: int) -> InternVLSize:
    """The same architecture, small enough for a CPU."""
    vision = replace(
        size.vision, hidden_size=64, num_attention_heads=2, intermediate_size=128, num_hidden_layers=2
    )
    decoder = replace(
        size.decoder, hidden_size=128, num_attention_heads=4, num_key_value_heads=2, intermediate_size=256,
        num_hidden_layers=layers,
    )  # fmt: skip
    return replace(size, vision=vision, decoder=decoder, image_size=224, max_dynamic_patch=2)


SMOKE = Workload(
    Pair(
        large=_shrunk(INTERNVL2["26B"], 3), small=_shrunk(INTERNVL2["2B"], 2), dtype="float32",
        image=(448, 224), max_model_len=512, large_kv=64 << 20, small_kv=32 << 20, max_num_seqs=8,
        flags=("--enforce-eager",), start_seconds=120,
        break_even="off",  # guidance of models this small pays by chance at most
    ),
    clients=4, latency_repeats=1, requests=6, rounds=2, burst=16, max_tokens=8, tokens_per_tile=64,
    # A budget of two whole images: five pruned ones fit one step by their tokens.
    default_flags=(
        "--enforce-eager", "--max-model-len=512", "--max-num-seqs=16", "--max-num-batched-tokens=512",
        f"--kv-cache-memory-bytes={64 << 20}", f'--sgl-small-args={{"kv_cache_memory_bytes": {32 << 20}}}',
        '--limit-mm-per-prompt={"image": 1}',
    ),
)  # fmt: skip
