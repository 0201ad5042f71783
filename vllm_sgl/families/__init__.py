"""The model families: one file each holds everything this project knows of it. Listed here, loaded on use."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedConfig
    from vllm.config import ModelConfig

    from vllm_sgl.families.base import Family
    from vllm_sgl.visual.tiles import Tiles

#: Set in a server's or LLM's environment, so that the plugin registers the variants in its engine processes.
ACTIVE_ENV = "SGL_VLLM_ACTIVE"

#: vLLM's architecture -> the family's file. Its variant, ``SGL`` + the architecture, is a class in that file.
#: Architectures that differ in nothing but vLLM's own class share a file.
FAMILIES = {
    "Glm4vForConditionalGeneration": "glm4v",
    "Glm4vMoeForConditionalGeneration": "glm4v",
    "InternVLChatModel": "internvl",
    "InternVLForConditionalGeneration": "internvl_hf",
    "InternS1ForConditionalGeneration": "internvl_hf",
    "LlavaOnevisionForConditionalGeneration": "llava_onevision",
    "Qwen2VLForConditionalGeneration": "qwen_vl",
    "Qwen2_5_VLForConditionalGeneration": "qwen_vl",
    "Qwen3VLForConditionalGeneration": "qwen_vl",
    "Qwen3VLMoeForConditionalGeneration": "qwen_vl",
    "Qwen3_5ForConditionalGeneration": "qwen_vl",
    "Qwen3_5MoeForConditionalGeneration": "qwen_vl",
}


def variant_name(architecture: str) -> str:
    """The name under which a family's variant is registered; a variant's own name is that already."""
    return architecture if architecture.startswith("SGL") else f"SGL{architecture}"


def known_architecture(names: list[str]) -> str | None:
    """The first of a config's architectures that has a family, under vLLM's name, or None."""
    plain = (name.removeprefix("SGL") for name in names)
    return next((name for name in plain if name in FAMILIES), None)


def family_of(model: "ModelConfig") -> "Family":
    """The family of a model.

    Raises:
        ValueError: if it has none.
    """
    names = model.hf_config.architectures or []
    architecture = known_architecture(names)
    if architecture is None:
        raise ValueError(
            f"SGL supports the vision-language architectures {', '.join(FAMILIES)}; received "
            f"{', '.join(names) or 'none'} ({model.model}): choose a pair of such models, or serve without "
            "--sgl-small. Another architecture takes a file in vllm_sgl/families, with where its visual "
            "tokens lie"
        )
    return _family(architecture)


def prompt_format(config: "PreTrainedConfig") -> str:
    """The name of the format of a model's prompts and items; its architecture's where no other has it.

    Args:
        config: the model's ``hf_config``.
    """
    names = config.architectures or []
    architecture = known_architecture(names)
    if architecture is None:
        return ", ".join(names)
    return _family(architecture).prompt_formats.get(architecture, architecture)


def _family(architecture: str) -> "Family":
    family: Family = import_module(f"{__name__}.{FAMILIES[architecture]}").FAMILY
    return family


def tiles_of(model: "ModelConfig") -> "Mapping[str, Tiles]":
    """How the items of a model's prompts carry their tiles, as :meth:`.base.Family.tiles`."""
    return family_of(model).tiles(model)


def register_variants() -> None:
    """Tell vLLM about the variants: its registry, and its table of configs by name; idempotent."""
    from vllm import ModelRegistry

    from vllm_sgl.host.start.named_settings import copy_configs

    known = ModelRegistry.get_supported_archs()
    for architecture, file in FAMILIES.items():
        name = variant_name(architecture)
        copy_configs(architecture, name)
        if name not in known:
            ModelRegistry.register_model(name, f"{__name__}.{file}:{name}")
