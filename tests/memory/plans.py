"""The table of docs/deploying.md: what the memory plan says of published pairs on GPUs of 80 and 141 GB.

    python -m tests.memory.plans

The guide is Qwen3-VL-2B in bfloat16. Contexts are the models' own, 262,144 tokens; the small engine's is
what its KV cache has room for. Bytes of weights are those of the checkpoint's decoder: towers add about 1 GB.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vllm import EngineArgs
from vllm.config import VllmConfig

from tests.memory import true_sizes
from vllm_sgl.engine.memory import GIB, Engine, plan, room_for_small
from vllm_sgl.host.start.device import Device, weight_bytes
from vllm_sgl.host.start.kv_need import longest_sequence, sequence_bytes

GPUS = {"80 GB": 80 * 10**9, "141 GB": 141 * 10**9}
RANKS = (1, 2, 4)
#: As by default on such a GPU: vision features, requests at once, and --gpu-memory-utilization.
FEATURES, SEQUENCES, UTILIZATION = GIB, 1024, 0.92

HEAD = (
    "| large model | weights | sequence | "
    + " | ".join(f"{gpu} x {ranks}" for gpu in GPUS for ranks in RANKS)
    + " |"
)


def models(root: Path) -> Iterator[tuple[str, VllmConfig]]:
    """Name and config of each large model; quantised ones as their checkpoints store them."""
    dense = true_sizes.qwen3_vl()
    for kind in ("bf16", *true_sizes.QUANTISED):
        made = made_of(root / kind, dense, true_sizes.decoder(dense, kind))
        if kind in true_sizes.QUANTISED:
            made.model_config.hf_config.quantization_config = true_sizes.QUANTISED[kind]
        yield f"Qwen3-VL-32B {kind}", made
    moe = true_sizes.qwen3_vl_moe()
    yield "Qwen3-VL-30B-A3B bf16", made_of(root / "moe", moe, true_sizes.experts(moe))
    online = made_of(root / "moe", moe, true_sizes.experts(moe))
    online.model_config.quantization = "fp8"
    yield "Qwen3-VL-30B-A3B, --quantization fp8", online
    hybrid = true_sizes.qwen3_5(64, 5120, 24, 4, 48)
    yield "Qwen3.5-27B bf16", made_of(root / "hybrid", hybrid, {"all": ("BF16", [27_800, 10**6])})


def made_of(path: Path, config: dict[str, Any], tensors: true_sizes.Tensors) -> VllmConfig:
    written = true_sizes.write(path, config, tensors)
    return EngineArgs(str(written), load_format="dummy", dtype="bfloat16").create_engine_config()


def guide(root: Path) -> VllmConfig:
    """Qwen3-VL-2B."""
    text = {"hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
            "intermediate_size": 6144}  # fmt: skip
    config = true_sizes.qwen3_vl()
    config["text_config"] |= text
    return made_of(root / "guide", config, {"all": ("BF16", [2_130, 10**6])})


def row(name: str, large: VllmConfig, small: VllmConfig) -> str:
    """One line of the table: what is left for the large engine's KV cache, in sequences of full length."""
    cells = [f"{weight_bytes(large) / 1e9:.1f} GB", f"{sequence_bytes(large) / GIB:.1f} GiB"]
    for total in GPUS.values():
        for ranks in RANKS:
            for config in (large, small):
                config.parallel_config.tensor_parallel_size = ranks
            cells.append(_cell(Device("gpu", "GPU", total, int(total * 0.99)), large, small))
    for config in (large, small):
        config.parallel_config.tensor_parallel_size = 1
    return f"| {name} | " + " | ".join(cells) + " |"


def rows() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        small = guide(root)
        return [row(name, large, small) for name, large in models(root)]


def _cell(gpu: Device, large: VllmConfig, small: VllmConfig) -> str:
    needs, guided = _needs(large), _needs(small)
    room = room_for_small(gpu, UTILIZATION, guided, needs)
    context = longest_sequence(small, max(room, 0))
    if context < guided.tokens:
        context -= context % 16
        guided = replace(guided, tokens=context, sequence=guided.sequence * context // guided.tokens)
    if context < 2048:
        return "refused"
    found = plan(gpu, UTILIZATION, guided, needs)
    return f"{found.large_kv / needs.sequence:.1f}, guide {context // 1024}k"


def _needs(config: VllmConfig) -> Engine:
    tokens = config.model_config.max_model_len
    return Engine(weight_bytes(config), sequence_bytes(config), tokens, SEQUENCES, FEATURES)


if __name__ == "__main__":
    print("\n".join([HEAD, "|---" * HEAD.count(" | ") + "|---|", *rows()]))
