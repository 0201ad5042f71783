"""What a model family is: the part of it that is not the model's own code."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Protocol

from vllm.config import ModelConfig

from vllm_sgl.visual.layout import LayoutOf

#: Of a request that changes nothing of how the model's processor is set.
NO_SETTINGS: Mapping[str, object] = MappingProxyType({})


class Family(Protocol):
    """One per file of this folder, as ``FAMILY``; beside it the variant, a class ``SGL<Architecture>``.

    pixel_fields: for each modality that can be guided, the item's field that holds its pixels. An item
        without it came as embeddings. One row per tile where ``tile_tokens`` says that tiles are encoded
        one by one.
    count_fields: for each of them, the field that says how many tiles there are; empty where items are
        encoded as a whole.
    image_processor: the class whose way of cutting an image ``layout_of`` knows, in whichever implementation.
    """

    pixel_fields: ClassVar[Mapping[str, str]]
    count_fields: ClassVar[Mapping[str, str]]
    image_processor: ClassVar[str]

    def vision_facts(self, model: ModelConfig) -> dict[str, object]:
        """What two models must agree in to share one rendered prompt, by names that say what it is."""
        ...

    def layout_of(self, model: ModelConfig, settings: Mapping[str, object] = NO_SETTINGS) -> LayoutOf:
        """Where the visual tokens of an image of a given size lie, as this model's processor is set.

        Args:
            settings: a request's own ``mm_processor_kwargs``.
        """
        ...

    def tile_tokens(self, model: ModelConfig) -> int | None:
        """Visual tokens of each tile, where a model encodes tiles one by one; None where it does not."""
        ...
