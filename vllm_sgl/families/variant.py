"""Choosing the SGL variant of a model."""

import os
from typing import Any

from vllm.transformers_utils.config import uses_mrope

from vllm_sgl.families import (
    ACTIVE_ENV,
    FAMILIES,
    known_architecture,
    register_variants,
    variant_name,
)
from vllm_sgl.host.start.named_settings import copy_decisions


def activate() -> None:
    """Register the variants here and in every engine process started from here."""
    os.environ[ACTIVE_ENV] = "1"
    register_variants()
    for architecture in FAMILIES:
        copy_decisions(architecture, variant_name(architecture))


class UseVariant:
    """``hf_overrides`` of vLLM: swaps the architecture for its SGL variant; picklable.

    A model that has none passes as it is: vLLM applies a callable to the draft of speculative decoding, too,
    which shares nothing with us. :func:`vllm_sgl.families.family_of` refuses it where it is the model.

    positions: "original" makes vLLM carry a position tensor of its own per request (three equal rows where
        the model does not use M-RoPE itself), so that kept tokens can keep their ids.
    then: the user's own ``hf_overrides``, applied first; a callable to drafts as well, a dict not, as vLLM
        does.

    Raises:
        ValueError: when called with the config of a model whose positions cannot be packed.
    """

    def __init__(self, positions: str, then: Any = None) -> None:
        self.positions = positions
        self.then = then

    def __call__(self, config: Any) -> Any:
        if callable(self.then):
            config = self.then(config)
        elif self.then and (_is_probe(config) or known_architecture([*_names(config), *self._renamed()])):
            _update(config, self.then)
        known = known_architecture(_names(config))
        if known is None:
            return config
        if self.positions == "packed" and uses_mrope(config):
            raise ValueError(
                f"{known} places visual tokens by row and column (M-RoPE), and numbering what is left of "
                "them means nothing; received positions='packed': leave it at 'original'"
            )
        config.architectures = [variant_name(known)]
        # vLLM's drafts look for it under a name that depends on the class of the model, and ours is another.
        if hasattr(config, "image_token_id") and not hasattr(config, "image_token_index"):
            config.image_token_index = config.image_token_id
        if self.positions == "original" and not uses_mrope(config):
            config.mrope_section = [0, 0, 0]
        return config

    def _renamed(self) -> list[str]:
        """The architectures that the user's dict names."""
        return self.then.get("architectures") or []


def _names(config: Any) -> list[str]:
    return config.architectures or []


def _is_probe(config: Any) -> bool:
    """vLLM first asks with an empty config whether the model type changes."""
    return _names(config) == [""]


def _update(config: Any, values: dict[str, Any]) -> None:
    """Set values on a config; a dict meant for a nested config updates that one."""
    for key, value in values.items():
        nested = getattr(config, key, None)
        if isinstance(value, dict) and hasattr(nested, "update") and not isinstance(nested, dict):
            _update(nested, value)
        else:
            setattr(config, key, value)
