"""A large and a small model, and the servers that can be made of them.

KV caches have fixed sizes, so that sides are alike and peaks can be compared; on a CPU, so is the layout of
processes and threads (`process_layout.py`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks import true_size
from benchmarks.true_size import INTERNVL2, TrueSize
from tools import tiny_internvl
from tools.sign_reading import widen
from tools.tiny_internvl import LARGE_QWEN2, SMALL_QWEN2, TinySpec

from .memory import GIB, Peak, device_bytes, settled, tree_bytes
from .process_layout import DEFAULT, LIKE_SGL
from .server import VLLM, Server
from .workspace import Workspace

#: plain: the large model alone. small: the small model alone. guided: SGL. default: as plain, but in vLLM's
#: default layout.
Side = Literal["plain", "small", "guided", "default"]
RETENTION = 0.35  # the server's own; requests name theirs


def sides(cpu: bool) -> tuple[Side, ...]:
    """Those that differ: on a GPU there is one layout."""
    return ("plain", "default", "small", "guided") if cpu else ("plain", "small", "guided")


def layouts(cpu: bool) -> dict[str, str]:
    """For reports: how the sides are laid out."""
    if not cpu:
        return {"all servers": "vLLM's own"}
    return {"plain, small": LIKE_SGL.about, "default": DEFAULT.about, "guided": "SGL's own"}


@dataclass(frozen=True)
class WidenedSigns:
    """A sign reader that costs what its part of a real pair costs (`tools/sign_reading/widen.py`). shape: of
    `tools.sign_reading.shapes`. gflop: of the large model, per tile."""

    shape: str
    part: Literal["large", "small"]
    gflop: float
    max_visual_tokens: int = 208

    @property
    def name(self) -> str:
        return f"signs-{self.part}-{self.shape}"

    def write(self, folder: Path) -> None:
        make = widen.widen_large if self.part == "large" else widen.widen_small
        make(folder, self.shape, self.gflop)


@dataclass(frozen=True)
class Variant:
    """A guided server that is started otherwise. flags: of ``vllm serve``, behind the pair's own."""

    name: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """image: width and height that give all tiles. kv: bytes. start_seconds: the most a server may take.
    break_even: ``--sgl-break-even``. images: of one request, at most."""

    large: TinySpec | TrueSize | WidenedSigns
    small: TinySpec | TrueSize | WidenedSigns
    dtype: str
    image: tuple[int, int]
    max_model_len: int
    large_kv: int
    small_kv: int
    max_num_seqs: int
    flags: tuple[str, ...]
    start_seconds: float
    break_even: str = "auto"
    images: int = 1

    @property
    def visual_tokens(self) -> int:
        """Of one image."""
        return self.large.max_visual_tokens

    @property
    def title(self) -> str:
        """Both models, for pictures."""
        return f"{self.large.name} guided by {self.small.name}"

    def kv(self, side: Side) -> int:
        """Bytes of all KV caches of a side."""
        large, small = self.large_kv, self.small_kv
        return {"plain": large, "default": large, "small": small, "guided": large + small}[side]

    def write(self, folder: Path) -> None:
        """Write both checkpoints, each below its name."""
        for model in (self.large, self.small):
            if isinstance(model, TrueSize):
                true_size.build(model, folder / model.name, self.dtype)
            elif isinstance(model, WidenedSigns):
                model.write(folder / model.name)
            else:
                tiny_internvl.build(replace(model, dtype=self.dtype), folder / model.name)

    def server(
        self, workspace: Workspace, side: Side, module: str = VLLM, variant: Variant | None = None
    ) -> Server:
        """A server of checkpoints that were written to ``workspace.work``. module: what is run; takes vLLM's
        command line. variant: what a guided one is given besides."""
        model = self.small if side == "small" else self.large
        name = f"serve-{side}"
        flags = [
            "--trust-remote-code", f"--dtype={self.dtype}", f"--max-model-len={self.max_model_len}",
            f"--max-num-seqs={self.max_num_seqs}", *self.flags,
            f'--limit-mm-per-prompt={{"image": {self.images}}}',
            f"--kv-cache-memory-bytes={self.small_kv if side == 'small' else self.large_kv}",
        ]  # fmt: skip
        if isinstance(model, TrueSize):
            flags.append("--load-format=dummy")
        if side == "guided":
            variant = variant or Variant("")
            name += f"-{variant.name}" if variant.name else ""
            small_args = json.dumps({"kv_cache_memory_bytes": self.small_kv})
            flags += [
                f"--sgl-small={workspace.work / self.small.name}", f"--sgl-retention={RETENTION}",
                f"--sgl-small-args={small_args}", f"--sgl-break-even={self.break_even}",
                *variant.flags,
            ]  # fmt: skip
        layout = LIKE_SGL if workspace.cpu and side in ("plain", "small") else DEFAULT
        flags += layout.flags
        path, seconds = workspace.work / model.name, self.start_seconds
        return Server(workspace, name, path, flags, seconds, layout.environment, module)


#: InternVL2-26B with a 2B guide on one GPU of 80 GB or more. Only one side fits at a time: the large model
#: alone is 47.5 GiB. The large KV cache holds 16 unpruned requests, the small one 12.
TRUE = Pair(
    large=INTERNVL2["26B"], small=INTERNVL2["2B"], dtype="bfloat16", image=(1792, 1344), max_model_len=4096,
    large_kv=int(10.5 * GIB), small_kv=4 * GIB, max_num_seqs=32,
    # vLLM's default on such a device, written down: it decides peak activations, and so the memory figures.
    flags=("--max-num-batched-tokens=8192",),
    start_seconds=240,
)  # fmt: skip

#: For two CPU cores: real tiles of 448 pixels and 256 tokens, four and a thumbnail; a large model whose
#: prefill outweighs all else, and a small one of a tenth of its FLOPs (a test counts them).
CPU = Pair(
    large=TinySpec(
        "large", "qwen2", hidden=1024, layers=12, heads=16, kv_heads=4, head_dim=64, intermediate=2816,
        vit_hidden=256, vit_layers=6, vit_heads=4, image_size=448, max_dynamic_patch=4,
        max_position_embeddings=4096, seed=14,
    ),
    small=TinySpec(
        "small", "qwen2", hidden=384, layers=6, heads=6, kv_heads=2, head_dim=64, intermediate=1408,
        vit_hidden=128, vit_layers=3, vit_heads=4, image_size=448, max_dynamic_patch=4,
        max_position_embeddings=4096, seed=1,
    ),
    dtype="bfloat16", image=(900, 900), max_model_len=2048, large_kv=1_500_000_000, small_kv=750_000_000,
    # The processor cache is a tenth of its default: three servers would fill the machine with images that
    # come only once.
    max_num_seqs=16, flags=("--enforce-eager", "--mm-processor-cache-gb=0.4"), start_seconds=400,
)  # fmt: skip

#: So small that its timings mean nothing, and that guidance would never pay.
QUICK = Pair(
    large=LARGE_QWEN2, small=SMALL_QWEN2, dtype="float32", image=(300, 200), max_model_len=640,
    large_kv=64 << 20, small_kv=32 << 20, max_num_seqs=16, flags=("--enforce-eager",), start_seconds=300,
    break_even="off",
)  # fmt: skip


def signs(shape: str, gflop: float) -> Pair:
    """The trained pair, widened: real answers and real masks, at a real pair's proportions. Every request is
    guided: a break-even rule would leave the smallest images alone, and the point is what guidance does."""
    return Pair(
        large=WidenedSigns(shape, "large", gflop), small=WidenedSigns(shape, "small", gflop),
        dtype="float32", image=(448, 336), max_model_len=512, large_kv=500_000_000, small_kv=100_000_000,
        max_num_seqs=16, flags=("--enforce-eager", "--mm-processor-cache-gb=0.4"), start_seconds=400,
        break_even="off", images=2,
    )  # fmt: skip


class Measured:
    """A running server and the memory that was in use meanwhile, in bytes: of the device, or resident where
    there is none. baseline: before it started. peak: filled in when it has ended."""

    def __init__(self, side: Side, server: Server, baseline: int, kv: int) -> None:
        self.side, self.server, self.baseline, self.kv = side, server, baseline, kv
        self.peak = 0


@contextmanager
def measured(workspace: Workspace, pair: Pair, side: Side) -> Iterator[Measured]:
    """Start one side alone, and watch its memory until the block ends."""
    server = pair.server(workspace, side)
    found = Measured(side, server, 0 if workspace.cpu else settled(device_bytes), pair.kv(side))
    # The server's process id is known only once it runs, and the highest peak may be at its start.
    with Peak(lambda: tree_bytes(server.pid) if workspace.cpu else device_bytes()) as peak:
        try:
            with server:
                yield found
        finally:
            found.peak = peak.bytes
