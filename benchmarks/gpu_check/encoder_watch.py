"""What a worker tells about itself; mixed into the large engine's by ``--worker-extension-cls``.

Only development servers (``VLLM_SERVER_DEV_MODE=1``) let a client call it, at ``/collective_rpc``.
"""

from typing import Any

import torch


class EncoderWatch:
    """Every name starts with ``watch_``, so that none collides with vLLM's worker."""

    def watch_start(self) -> dict[str, int]:
        """Count tiles per call of an InternVL's vision encoder from now on; the scheduler's limits."""
        if not hasattr(self, "watch_largest"):
            encoder = self.get_model().vision_model  # type: ignore[attr-defined]
            encoder.register_forward_pre_hook(self.watch_count, with_kwargs=True)
        self.watch_largest = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        config = self.vllm_config  # type: ignore[attr-defined]
        return {
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "encoder_tokens": config.scheduler_config.max_num_encoder_input_tokens,
            "max_model_len": config.model_config.max_model_len,
        }

    def watch_count(self, module: Any, arguments: tuple, keywords: dict[str, Any]) -> None:
        pixels = keywords["pixel_values"] if "pixel_values" in keywords else arguments[0]
        self.watch_largest = max(self.watch_largest, len(pixels))

    def watch_read(self) -> dict[str, int]:
        """Since the start: most tiles of one call, and most bytes that tensors took on the device."""
        most = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return {"largest_call": self.watch_largest, "allocated": most}
