"""Images and videos of a rendered prompt: where they are and how many visual tokens they have.

A prompt may hold several kinds of them. Everything here counts them as one sequence, in prompt order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from vllm_sgl.core import RenderedPrompt, VisualItem
from vllm_sgl.host.render.mm_input import PlaceholderRange

#: vLLM's names of what is made of visual tokens.
MODALITIES = ("image", "video")


@dataclass(frozen=True)
class Placed:
    """One item of a prompt. index: among those of its modality, as vLLM lists them."""

    modality: str
    index: int
    place: PlaceholderRange

    @cached_property
    def visual_tokens(self) -> int:
        return int(embed_mask(self.place).sum())

    @property
    def least(self) -> int:
        """The fewest visual tokens to keep, so that the placeholder is not empty."""
        return int(self.visual_tokens == self.place.length)


def placed_items(prompt: RenderedPrompt) -> list[Placed]:
    """The images and videos of a prompt, in prompt order."""
    found = [
        Placed(modality, index, place)
        for modality, places in prompt["mm_placeholders"].items()
        if modality in MODALITIES
        for index, place in enumerate(places)
    ]
    return sorted(found, key=lambda item: item.place.offset)


def modalities(prompt: RenderedPrompt) -> set[str]:
    """Every modality of which the prompt has an item, visual or not."""
    return {name for name, places in prompt["mm_placeholders"].items() if places}


def images_alone(items: Iterable[VisualItem]) -> bool:
    """Whether none of them is a video."""
    return all(item.modality == "image" for item in items)


def visual_counts(prompt: RenderedPrompt) -> tuple[int, ...]:
    """Visual tokens of each image and video of a prompt, in prompt order."""
    return tuple(item.visual_tokens for item in placed_items(prompt))


def visual_end(prompt: RenderedPrompt) -> int:
    """One past the last visual token's position in a prompt that has one."""
    return int(visual_positions(item.place for item in placed_items(prompt))[-1]) + 1


def embed_mask(place: PlaceholderRange) -> torch.Tensor:
    """Which of a placeholder's positions are visual tokens (others are markers); bool [length]."""
    if place.is_embed is None:
        return torch.ones(place.length, dtype=torch.bool)
    mask: torch.Tensor = place.is_embed
    return mask


def visual_positions(places: Iterable[PlaceholderRange]) -> torch.Tensor:
    """Prompt positions of all visual tokens, ascending; int64 [visual tokens]."""
    parts = [embed_mask(place).nonzero().flatten() + place.offset for place in places]
    return torch.cat(parts).sort().values


def by_modality(items: Iterable[Placed]) -> Iterator[tuple[str, list[int]]]:
    """For each modality, the numbers that its items have in the whole sequence, in vLLM's own order."""
    numbers: dict[str, dict[int, int]] = {}
    for number, item in enumerate(items):
        numbers.setdefault(item.modality, {})[item.index] = number
    for modality, of in numbers.items():
        yield modality, [of[index] for index in sorted(of)]
