"""Checks that the family's layout matches the model's image processor and its settings.

Crossed pairs need it: with a wrong layout, importance would prune the wrong part of every image without an
error. Pairs whose models tile images alike do not need it.
"""

from typing import Any

from vllm.config import ModelConfig
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_sgl.families import FAMILIES, family_of, known_architecture
from vllm_sgl.host.render.small_prompt import place_of_image, processor_of
from vllm_sgl.visual.items import embed_mask

#: Of vLLM, beside what imports and annotations show: for tools/check_seams.py.
SEAMS = ("vllm.multimodal.processing.context:BaseProcessingInfo.get_hf_processor",)

#: Width and height of images that are counted: wide and cut into tiles, tall, and smaller than a tile.
_SIZES = ((960, 480), (300, 700), (90, 60))

#: Settings of image processors, what they usually are, and what another value does.
_USUAL = (
    ("do_center_crop", False, "leaves out an image's border"),
    ("do_resize", True, "leaves the size of what is cut open"),
)


def why_unknown(model: ModelConfig) -> str | None:
    """Why the layout does not match, with what to add and where; None if it does."""
    architecture = known_architecture(model.hf_config.architectures)
    assert architecture is not None, model.hf_config.architectures
    family, file = family_of(model), f"vllm_sgl/families/{FAMILIES[architecture]}.py"
    images = _image_processor(model)
    kind = type(images).__name__
    if kind.removesuffix("Fast").removesuffix("Pil") not in family.image_processors:
        known = " or ".join(family.image_processors)
        return (
            f"its images go through {kind}, where {known} is known: add how that one cuts "
            f"an image to layout_of in {file}, and a case to tests/families/test_layout.py"
        )
    for setting, usual, why in _USUAL:
        if getattr(images, setting, usual) not in (usual, None):
            return (
                f"its image processor has {setting}={getattr(images, setting)}, which {why}: set it to "
                f"{usual} in the model's files, or take it into account in layout_of in {file}"
            )
    return _miscounted(model, file)


def _miscounted(model: ModelConfig, file: str) -> str | None:
    """Compares the number of boxes with that of visual tokens, on images of several sizes."""
    if not model.multimodal_config.get_limit_per_prompt("image"):
        return None
    layout_of, processor = family_of(model).layout_of(model), processor_of(model)
    for size in _SIZES:
        expected = layout_of(*size).visual_tokens
        found = int(embed_mask(place_of_image(processor, *size)).sum())
        if found != expected:
            return (
                f"an image of {size[0]} x {size[1]} pixels has {found} visual tokens, where {expected} are "
                f"expected: layout_of in {file} does not know a setting of the image processor: add it there"
            )
    return None


def _image_processor(model: ModelConfig) -> Any:
    return MULTIMODAL_REGISTRY.create_processor(model).info.get_hf_processor().image_processor
