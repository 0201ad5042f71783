"""The two servers that are compared: plain vLLM, and the same large model guided by a small one.

On one 80 GB device both cannot be resident: InternVL2-26B alone is 47.5 GiB in bfloat16. So plain vLLM runs
first, to its end, and the guided server after it. Dummy weights make both starts short. KV caches have fixed
sizes, so that peaks can be compared: the large one holds 16 unpruned requests, the small one 12.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.true_size import INTERNVL2, TrueSize, build

from .memory import Peak, device_bytes, settled, tree_bytes
from .server import Server
from .session import Session

GIB = 1 << 30
RETENTION = 0.35  # the server's own; requests name theirs


@dataclass(frozen=True)
class Plan:
    """What is served, and how much is asked of it. image: width and height that give all tiles."""

    large: TrueSize
    small: TrueSize
    dtype: str
    image: tuple[int, int]
    max_model_len: int
    large_kv: int
    small_kv: int
    max_num_seqs: int
    flags: tuple[str, ...]
    start_seconds: float
    clients: int
    latency_repeats: int
    requests: int
    rounds: int
    max_tokens: int = 32


TRUE = Plan(
    large=INTERNVL2["26B"], small=INTERNVL2["2B"], dtype="bfloat16", image=(1792, 1344), max_model_len=4096,
    large_kv=int(10.5 * GIB), small_kv=4 * GIB, max_num_seqs=32,
    # vLLM's default on such a device, written down: it decides peak activations, and so the memory figures.
    flags=("--max-num-batched-tokens=8192",),
    start_seconds=240, clients=16, latency_repeats=5, requests=32, rounds=2,
)  # fmt: skip


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


SMOKE = Plan(
    large=_shrunk(INTERNVL2["26B"], 3), small=_shrunk(INTERNVL2["2B"], 2), dtype="float32", image=(224, 112),
    max_model_len=512, large_kv=64 << 20, small_kv=32 << 20, max_num_seqs=8,
    flags=("--enforce-eager",), start_seconds=120, clients=4, latency_repeats=1, requests=6, rounds=2,
    max_tokens=8,
)  # fmt: skip


class Side:
    """A running server and the device's memory while it ran. baseline: bytes in use before it started."""

    def __init__(self, name: str, server: Server, baseline: int, kv: int) -> None:
        self.name, self.server, self.baseline, self.kv = name, server, baseline, kv
        self.peak = 0


@contextmanager
def side(session: Session, plan: Plan, *, guided: bool) -> Iterator[Side]:
    """Start one of the two servers; ``peak`` is filled in when the block ends."""
    large = build(plan.large, session.work / plan.large.name, plan.dtype)
    flags = [
        "--trust-remote-code", "--load-format=dummy", f"--dtype={plan.dtype}",
        f"--max-model-len={plan.max_model_len}", f"--max-num-seqs={plan.max_num_seqs}",
        f"--kv-cache-memory-bytes={plan.large_kv}", '--limit-mm-per-prompt={"image": 1}', *plan.flags,
    ]  # fmt: skip
    name, kv = "plain", plan.large_kv
    if guided:
        name, kv = "guided", plan.large_kv + plan.small_kv
        small = build(plan.small, session.work / plan.small.name, plan.dtype)
        small_args = json.dumps({"kv_cache_memory_bytes": plan.small_kv})
        flags += [f"--sgl-small={small}", f"--sgl-retention={RETENTION}", f"--sgl-small-args={small_args}"]
    baseline = 0 if session.smoke else settled(device_bytes)
    server = Server(session, f"serve-{name}", Path(large), flags, plan.start_seconds)
    found = Side(name, server, baseline, kv)
    # The server's process id is known only once it runs, and the highest peak may be at its start.
    with Peak(lambda: tree_bytes(server.pid) if session.smoke else device_bytes()) as peak:
        try:
            with server:
                yield found
        finally:
            found.peak = peak.bytes
