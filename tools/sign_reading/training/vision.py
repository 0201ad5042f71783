"""First stage: the vision encoder alone learns to name, for every visual token, sign colour and digits.

Answers to questions are too thin a signal to learn reading from; a label per visual token is a thick one.
The two heads are thrown away afterwards.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import InternVLForConditionalGeneration

from ..scene import COLOURS
from .bank import SIDE, SLOTS, Bank
from .progress import Stage, optimizers

MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
BATCH = 64
HELD_OUT = 1024
"""Tiles at the end of the bank that only measure."""


def normalise(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [n, height, width, 3] to InternVL's input, float32 [n, 3, height, width]."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def features(model: InternVLForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """What the connector reads, [tiles, 16, 4 * width]: encoder output after the 2 x 2 pixel shuffle."""
    return shuffled(model, model.model.vision_tower(pixels).last_hidden_state[:, 1:])


def shuffled(model: InternVLForConditionalGeneration, patches: torch.Tensor) -> torch.Tensor:
    """Visual tokens [tiles, 16, 4 * width] of patches [tiles, 64, width]."""
    grid = patches.unflatten(1, (2 * SIDE, 2 * SIDE))
    return model.model.pixel_shuffle(grid, scale_factor=0.5).flatten(1, 2)


class Heads(nn.Module):
    """Linear readers. At a patch: digit and place; at a visual token: sign colour and digit per place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(4 * width)
        self.patch = nn.Linear(width, 11 + 1 + SLOTS)
        self.colour = nn.Linear(4 * width, 1 + len(COLOURS))
        self.digits = nn.Linear(4 * width, SLOTS * 11)

    def forward(self, patches: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits: digit [tiles, 64, 11] and place [tiles, 64, 4] of patches [tiles, 64, width]; colour
        [tiles, 16, 9] and digits [tiles, 16, 3, 11] of tokens [tiles, 16, 4 * width]."""
        digit, place = self.patch(self.patch_norm(patches)).split([11, 1 + SLOTS], -1)
        tokens = self.norm(tokens)
        return digit, place, self.colour(tokens), self.digits(tokens).unflatten(-1, (SLOTS, 11))


def balanced(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy; class 0, nothing there, weighs half of all the others together."""
    each = functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    there = targets.flatten() > 0
    return each[there].mean() + 0.5 * each[~there].mean()


def train(
    model: InternVLForConditionalGeneration,
    bank: Bank,
    steps: int,
    directory: Path,
    number: int,
    rate: float,
) -> None:
    """Train `model`'s vision encoder in place for `steps` batches of 64 tiles.

    Args:
        number: of this descent of the learning rate; all but the first go on from the one before.
        rate: peak learning rate of the matrices.
    """
    tower, device = model.model.vision_tower, model.device
    heads = Heads(model.config.vision_config.hidden_size).to(device)
    matrices = [p for name, p in tower.named_parameters() if p.ndim == 2 and "encoder.layer" in name]
    in_matrices = {id(p) for p in matrices}
    others = [p for p in [*tower.parameters(), *heads.parameters()] if id(p) not in in_matrices]
    parts = nn.ModuleDict({"tower": tower, "heads": heads})
    if number:
        parts.load_state_dict(torch.load(directory / f"vision-{number - 1}.pt", map_location="cpu")["module"])
    groups = [{"params": matrices, "lr": rate}], [{"params": others, "lr": 0.5 * rate}]
    stage = Stage(f"vision-{number}", steps, directory, parts, optimizers(*groups))
    training = len(bank) - HELD_OUT
    labels = [torch.from_numpy(array) for array in (bank.patches, bank.colour, bank.digits)]
    # Every tile with a sign, and one in ten of the others.
    useful = np.flatnonzero((bank.colour[:training] > 0).any(1) | (np.arange(training) % 10 == 0))

    def logits(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        patches = tower(pixels.to(device)).last_hidden_state[:, 1:]
        return heads(patches, shuffled(model, patches))

    for step in stage:
        rng = np.random.default_rng([4, step])
        chosen = np.sort(rng.choice(useful, BATCH, replace=False))
        pixels = normalise(bank.pixels[chosen])
        contrast = torch.from_numpy(rng.uniform(0.8, 1.2, (BATCH, 1, 1, 1)).astype(np.float32))
        brightness = torch.from_numpy(rng.uniform(-0.2, 0.2, (BATCH, 1, 1, 1)).astype(np.float32))
        digit, place, colour, digits = logits(pixels * contrast + brightness)
        of_patch, of_colour, of_digits = (label[chosen].to(device) for label in labels)
        loss = balanced(digit, of_patch[..., 0]) + 0.5 * balanced(place, of_patch[..., 1])
        loss = loss + 0.5 * balanced(colour, of_colour) + balanced(digits, of_digits)
        stage.learn(loss)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            with torch.inference_mode():
                parts = [logits(normalise(part)) for part in np.split(bank.pixels[training:], 16)]
            digit, place, colour, digits = (torch.cat(part).argmax(-1) for part in zip(*parts, strict=True))
            of_patch, of_colour, of_digits = (label[training:].to(device) for label in labels)
            stage.log(
                step + 1,
                loss=loss.item(),
                patch_digit=share_right(digit, of_patch[..., 0]),
                patch_place=share_right(place, of_patch[..., 1]),
                colour=share_right(colour, of_colour),
                digit=share_right(digits, of_digits),
            )


def share_right(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Share of right ones where there is something to find."""
    return (found == wanted)[wanted > 0].float().mean().item()
