"""What vLLM says itself of models at their true size: their layers are made on the meta device, without
weights, and asked for their KV cache.

    python -m tests.memory.own_numbers FOLDER

Prints a JSON object: by name, bytes of a sequence of full length and of the parameters, and what is read
beforehand. A process of its own, because vLLM's parallel groups are made once.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from vllm import EngineArgs
from vllm.config import set_current_vllm_config
from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.platforms import current_platform
from vllm.utils.torch_utils import set_default_torch_dtype
from vllm.v1.core.kv_cache_utils import max_memory_usage_bytes

from tests.memory import true_sizes
from vllm_sgl.host.start.kv_need import longest_sequence, sequence_bytes
from vllm_sgl.pair.work import decoder_parameters

#: Name -> its config. The first has experts: vLLM makes their parallel group with the first model alone.
MODELS = {
    "latent attention": true_sizes.deepseek_v2_lite(),
    "Qwen3-VL-30B-A3B": true_sizes.qwen3_vl_moe(),
    "Gemma 3 27B": true_sizes.gemma3(),
    "Qwen3.5-27B": true_sizes.qwen3_5(64, 5120, 24, 4, 48),
    "Qwen3-VL-32B": true_sizes.qwen3_vl(),
}


def asked(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    path = true_sizes.write(folder, config, {})
    made = EngineArgs(str(path), load_format="dummy", dtype="bfloat16").create_engine_config()
    found: dict[str, Any] = {"said": sequence_bytes(made), "context": made.model_config.max_model_len}
    found["longest"] = longest_sequence(made, found["said"])
    found["longest in half"] = longest_sequence(made, found["said"] // 2)
    with set_current_vllm_config(made):
        if not torch.distributed.is_initialized():
            init_distributed_environment(1, 0, f"file://{folder}/init", 0, "gloo")
            ensure_model_parallel_initialized(1, 1)
        with torch.device("meta"), set_default_torch_dtype(torch.bfloat16):
            model = initialize_model(made)
        current_platform.update_block_size_for_backend(made)
        layers = made.compilation_config.static_forward_context.values()
        specs = [layer.get_kv_cache_spec(made) for layer in layers if isinstance(layer, AttentionLayerBase)]
    found["own"] = max_memory_usage_bytes(made, [spec for spec in specs if spec is not None])
    found["parameters"] = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    text = made.model_config.hf_text_config
    embeddings = (1 if config.get("tie_word_embeddings", True) else 2) * text.vocab_size * text.hidden_size
    found["counted"] = 2 * (decoder_parameters(made.model_config, active=False) + embeddings)
    found["tower"] = sum(w.numel() * 2 for name, w in model.named_parameters() if _is_vision(name))
    return found


def _is_vision(name: str) -> bool:
    return any(part in name for part in ("visual.", "vision", "multi_modal"))


if __name__ == "__main__":
    results = {name: asked(Path(sys.argv[1]) / name, config) for name, config in MODELS.items()}
    print("RESULT", json.dumps(results))
