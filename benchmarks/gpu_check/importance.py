"""The guide's importance against transformers' eager attention, on a small model.

Each combination of attention backend, dtype, model runner and graph mode is a process of its own
(:mod:`.importance_child`), because vLLM reads half of these from the environment. All of them run side by
side: nothing is timed here.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from os import cpu_count

from tools.tiny_internvl import LARGE_QWEN2, SMALL_QWEN2, build_pair

from .section import Check, Section

_SECONDS = 200
#: Per dtype: most relative error of any request, sum |a - b| / sum b over its visual tokens, and least share
#: of the top 35 % in common, over all requests. Weights are exact in either dtype, so what is left is
#: arithmetic: attention logits have a standard deviation of 4 here; bfloat16 keeps 8 bits of each, and
#: Triton's float32 attention on a GPU 11 (it multiplies in TF32).
TOLERANCE = {"float32": (1e-2, 0.97), "bfloat16": (5e-2, 0.90)}


@dataclass(frozen=True)
class Combination:
    """backend: None takes vLLM's choice. runner: 1 or 2, vLLM's model runners. graphs: with torch.compile
    and CUDA graphs (PIECEWISE in the small engine) instead of eager."""

    backend: str | None
    dtype: str
    runner: int
    graphs: bool

    @property
    def name(self) -> str:
        mode = "graphs" if self.graphs else "eager"
        return f"{self.backend or 'default'}-{self.dtype}-v{self.runner}-{mode}"


# FlashAttention has no float32.
GPU = [
    Combination(backend, dtype, runner, graphs)
    for (backend, dtype), runner, graphs in product(
        (("FLASH_ATTN", "bfloat16"), ("TRITON_ATTN", "float32")), (1, 2), (False, True)
    )
]
SMOKE = [Combination(None, "float32", 1, False)]


def run(check: Check) -> Section:
    section = Section()
    combinations = SMOKE if check.smoke else GPU
    for dtype in dict.fromkeys(c.dtype for c in combinations):
        pair = (replace(SMALL_QWEN2, dtype=dtype), replace(LARGE_QWEN2, dtype=dtype))
        build_pair(check.work / dtype, *pair)
    with ThreadPoolExecutor(max(1, min(len(combinations), (cpu_count() or 2) // 2))) as pool:
        for row, why in pool.map(lambda one: _row(check, one), combinations):
            section.rows.append(row)
            section.expect(row["ok"], f"{row['combination']}: {why}")
    return section


def _row(check: Check, one: Combination) -> tuple[dict, str]:
    """A row, and why it is not ok."""
    log, result = f"importance-{one.name}.log", check.work / f"importance-{one.name}.json"
    pair = check.work / one.dtype
    asked = {
        "small": str(pair / SMALL_QWEN2.name), "large": str(pair / LARGE_QWEN2.name), "dtype": one.dtype,
        "backend": one.backend, "graphs": one.graphs, "result": str(result),
    }  # fmt: skip
    environment = {
        "VLLM_USE_V2_MODEL_RUNNER": str(one.runner - 1),
        # Side by side: neither fight for the cores nor for one cache folder.
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "VLLM_CACHE_ROOT": str(check.work / "cache" / one.name),
    }
    command = [sys.executable, "-m", "benchmarks.gpu_check.importance_child", json.dumps(asked)]
    code = check.run(command, log, _SECONDS, environment)
    row: dict = {"combination": one.name, "relative_error": None, "top_agreement": None, "ok": False}
    if code or not result.exists():
        return row, f"exit {code}, see {log}\n{check.tail(log)}"
    row |= json.loads(result.read_text())
    most, least = TOLERANCE[one.dtype]
    row["ok"] = row["relative_error"] <= most and row["top_agreement"] >= least
    return row, f"allowed: relative error <= {most}, agreement of the top 35 % >= {least}"
