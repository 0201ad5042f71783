"""SGL variants of vLLM's model classes, registered under names of their own."""

import os
from typing import Any

#: Set in a server's or LLM's environment, so that the plugin registers the variants in its engine processes.
ACTIVE_ENV = "SGL_VLLM_ACTIVE"

#: vLLM architecture -> (our architecture, where it is).
VARIANTS = {
    "InternVLChatModel": ("SGLInternVLChatModel", "vllm_sgl.models.internvl:SGLInternVLChatModel"),
}


def register_variants() -> None:
    """Tell vLLM's model registry about the variants; idempotent."""
    from vllm import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    for name, where in VARIANTS.values():
        if name not in known:
            ModelRegistry.register_model(name, where)


def activate() -> None:
    """Register the variants here and in every engine process started from here."""
    os.environ[ACTIVE_ENV] = "1"
    register_variants()


class UseVariant:
    """``hf_overrides`` of vLLM: swaps the architecture for its SGL variant; picklable.

    positions: "original" makes vLLM carry a position tensor of its own per request (three equal rows,
        as M-RoPE models do), so that kept tokens can keep their ids.
    then: the user's own ``hf_overrides``, a dict or a callable, applied first.

    Raises:
        ValueError: when called with the config of a model that has no variant.
    """

    def __init__(self, positions: str, then: Any = None) -> None:
        self.positions = positions
        self.then = then

    def __call__(self, config: Any) -> Any:
        if callable(self.then):
            config = self.then(config)
        else:
            _update(config, self.then or {})
        names = config.architectures or []
        if names == [""]:  # vLLM first asks with an empty config whether the model type changes
            return config
        variants = {name for name, _ in VARIANTS.values()}
        known = next((n for n in names if n in VARIANTS or n in variants), None)
        if known is None:
            raise ValueError(
                f"SGL supports the vision-language architectures {', '.join(VARIANTS)}; received "
                f"{names or 'none'}: choose a pair of such models, or serve without --sgl-small"
            )
        config.architectures = [VARIANTS[known][0] if known in VARIANTS else known]
        if self.positions == "original":
            config.mrope_section = [0, 0, 0]
        return config


def _update(config: Any, values: dict[str, Any]) -> None:
    """Set values on a config; a dict meant for a nested config updates that one."""
    for key, value in values.items():
        nested = getattr(config, key, None)
        if isinstance(value, dict) and hasattr(nested, "update") and not isinstance(nested, dict):
            _update(nested, value)
        else:
            setattr(config, key, value)
