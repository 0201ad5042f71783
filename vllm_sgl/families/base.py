"""The protocol of a model family: what is not in the model's own code."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Protocol

from vllm.config import ModelConfig

from vllm_sgl.visual.layout import LayoutOf
from vllm_sgl.visual.tiles import Encoded, Tiles

#: No per-request processor settings.
NO_SETTINGS: Mapping[str, object] = MappingProxyType({})


class Family(Protocol):
    """One per file of this folder, as ``FAMILY``; beside it the variant, a class ``SGL<Architecture>``.

    pixel_fields: for each modality that can be guided, the item's field that holds its pixels. An item
        without it came as embeddings.
    image_processors: the classes whose way of cutting an image ``layout_of`` knows, in whichever
        implementation.
    prompt_formats: architecture -> the name of the format of its prompts and items, for architectures that
        share one. Others have a format each.
    """

    pixel_fields: ClassVar[Mapping[str, str]]
    image_processors: ClassVar[tuple[str, ...]]
    prompt_formats: ClassVar[Mapping[str, str]]

    def vision_facts(self, model: ModelConfig) -> dict[str, object]:
        """What two models must agree in to share one rendered prompt, by names that say what it is."""
        ...

    def layout_of(self, model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS) -> LayoutOf:
        """Where the visual tokens of an image of a given size lie, as this model's processor is set.

        Args:
            settings: a request's own ``mm_processor_kwargs``.
        """
        ...

    def tiles(self, model: ModelConfig) -> Mapping[str, Tiles]:
        """How items carry their tiles, for each modality whose tiles a model encodes one by one."""
        ...

    def encoded(self, model: ModelConfig) -> Mapping[str, Encoded]:
        """How many visual tokens the vision encoder makes of an item, for each guided modality."""
        ...
