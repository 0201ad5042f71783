"""vLLM's model runner: a model hears that features of old weights are to be forgotten.

Symptom without it: after an update of the weights vLLM's ``reset_encoder_cache`` clears the runner's own
features, and a model that keeps features answers from those of the old weights. Sleep, a pause that clears
caches, ``reload_weights`` and trainers of a running model call it, and no model hears of it. Remove when it
does.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, runtime_checkable

from vllm.config import VllmConfig

from vllm_sgl.host.patch import wrap

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = (
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.reset_encoder_cache",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner.get_model",
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner.reset_encoder_cache",
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner.get_model",
)


@runtime_checkable
class KeepsFeatures(Protocol):
    """A model with features of its own."""

    def forget_features(self) -> None:
        """Those of the weights until now."""
        ...


def watch(config: VllmConfig) -> None:
    """Tell models that keep features, in the runner that this config chooses; idempotent.

    Raises:
        RuntimeError: where the runner has no such method.
    """
    if config.use_v2_model_runner:
        from vllm.v1.worker.gpu.model_runner import GPUModelRunner
    else:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    wrap(GPUModelRunner, "reset_encoder_cache", ("self",), "vllm_sgl/host/worker/weights.py", _telling)


def _telling(reset: Callable[[Any], None]) -> Callable[[Any], None]:
    @wraps(reset)
    def reset_encoder_cache(self: Any) -> None:
        reset(self)
        if hasattr(self, "model") and isinstance(model := self.get_model(), KeepsFeatures):
            model.forget_features()

    return reset_encoder_cache
