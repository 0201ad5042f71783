"""What is served and how much is asked of it.

On one 80 GB device both sides cannot be resident. So plain vLLM runs first, to its end, and the guided server
after it. Dummy weights make both starts short.
"""

from dataclasses import dataclass, replace

from benchmarks.serving.pair import TRUE, Pair
from benchmarks.true_size import INTERNVL2, TrueSize


@dataclass(frozen=True)
class Workload:
    """The pair, and how many clients, requests and rounds."""

    pair: Pair
    clients: int
    latency_repeats: int
    requests: int
    rounds: int
    max_tokens: int = 32


GPU = Workload(TRUE, clients=16, latency_repeats=5, requests=32, rounds=2)


def _shrunk(size: TrueSize, layers: int) -> TrueSize:
    """The same architecture, small enough for a CPU."""
    vision = replace(
        size.vision, hidden_size=64, num_attention_heads=2, intermediate_size=128, num_hidden_layers=2
    )
    decoder = replace(
        size.decoder, hidden_size=128, num_attention_heads=4, num_key_value_heads=2, intermediate_size=256,
        num_hidden_layers=layers,
    )  # fmt: skip
    return replace(size, vision=vision, decoder=decoder, image_size=112, max_dynamic_patch=2)


SMOKE = Workload(
    Pair(
        large=_shrunk(INTERNVL2["26B"], 3), small=_shrunk(INTERNVL2["2B"], 2), dtype="float32",
        image=(224, 112), max_model_len=512, large_kv=64 << 20, small_kv=32 << 20, max_num_seqs=8,
        flags=("--enforce-eager",), start_seconds=120,
    ),
    clients=4, latency_repeats=1, requests=6, rounds=2, max_tokens=8,
)  # fmt: skip
