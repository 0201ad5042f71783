"""Its three stages.

read      the encoder names sign colour and digits at every patch and token, and says what the InternVL
          reader's connector says about the same tokens: the decoder, which came from there, understands that
answer    everything learns to answer questions about images that are put together from the bank; in every
          other step most visual tokens without a sign go missing, at their original positions
painted   the same on painted scenes
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from transformers import InternVLForConditionalGeneration, Qwen2VLForConditionalGeneration

from ..questions import ask
from ..scene import paint
from ..split import GRIDS, PAIR_GRID, PAIRS, example, scenes
from ..training.bank import Bank, labels
from ..training.compose import QUESTIONS, TOKENS, Composer
from ..training.decoder import answer_logits, exact, some_kept
from ..training.progress import Stage, optimizers
from ..training.prompts import IGNORED, Batch
from ..training.vision import HELD_OUT, Heads, balanced, features, normalise, share_right
from .images import Composed, Grid, Labels, compose, patch_order, patches, sizes, token_order, tokens_of
from .prompts import NativePrompts, drop_native

Draw = Callable[[np.random.Generator], tuple[Composed, Batch]]
"""Images, and as many rows of questions as requests that they belong to."""
READING = ((2, 2), (3, 2), (3, 3), (4, 3), (3, 4), (5, 2))
TILES = 60
"""Of a batch of the stage `read`, at most."""


def _half() -> torch.autocast:
    """Matrix products in bfloat16, which halves a step's time on a CPU that has them."""
    return torch.autocast("cpu", torch.bfloat16)


class Trainer:
    """Trains one model, stage after stage.

    Args:
        teacher: an InternVL reader in transformers' own class.
    """

    def __init__(
        self,
        model: Qwen2VLForConditionalGeneration,
        teacher: InternVLForConditionalGeneration,
        prompts: NativePrompts,
        directory: Path,
    ) -> None:
        self.model, self.teacher, self.prompts, self.directory = model, teacher, prompts, directory
        self.heads = Heads(model.config.vision_config.embed_dim)
        self.parts = nn.ModuleDict({"model": model, "heads": self.heads})

    def _stage(self, name: str, steps: int, rate: float, vision_rate: float) -> Stage:
        """rate: of the decoder, 0 where it stays as it is."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter_name, parameter in self.parts.named_parameters():
            vision = ".visual." in parameter_name or parameter_name.startswith("heads.")
            by_muon = parameter.ndim == 2 and (".blocks." in parameter_name or ".layers." in parameter_name)
            parameter.requires_grad_(vision or rate > 0)
            if parameter.requires_grad:
                groups.setdefault((by_muon, vision), []).append(parameter)
        made: dict[bool, list] = {True: [], False: []}
        for (by_muon, vision), parameters in groups.items():
            peak = vision_rate if vision else rate
            made[by_muon].append({"params": parameters, "lr": peak if by_muon else 0.5 * peak})
        return Stage(name, steps, self.directory, self.parts, optimizers(made[True], made[False]))

    def _encode(self, pixels: torch.Tensor, grids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches [patches, width] as the encoder leaves them, visual tokens [tokens, hidden]; float32."""
        output = self.model.model.visual(pixels, grids)
        return output.last_hidden_state.float(), output.pooler_output.float()

    def _naming(self, encoded: torch.Tensor, wanted: Labels) -> torch.Tensor:
        digit, place, colour, digits = self._named(encoded)
        loss = balanced(digit, wanted.patches[:, 0]) + 0.5 * balanced(place, wanted.patches[:, 1])
        return loss + 0.5 * balanced(colour, wanted.colour) + balanced(digits, wanted.digits)

    def _named(self, encoded: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.heads(encoded, encoded.view(len(encoded) // 4, -1))

    @torch.no_grad()
    def _teach(self, bank: Bank, tiles: np.ndarray, grid: Grid) -> torch.Tensor:
        """What the teacher's connector says about the visual tokens of composed images, [tokens, hidden]."""
        flat = normalise(bank.pixels[tiles.ravel()])
        said = self.teacher.model.multi_modal_projector(features(self.teacher, flat))
        said = said.view(len(tiles), -1, said.shape[-1])
        return said[:, token_order(grid)].flatten(0, 1)

    def read(self, bank: Bank, steps: int, rate: float) -> None:
        """The stage `read`; `rate` is the peak learning rate of the matrices."""
        stage = self._stage("read", steps, 0.0, rate)
        training = len(bank) - HELD_OUT
        useful = np.flatnonzero((bank.colour[:training] > 0).any(1) | (np.arange(training) % 10 == 0))
        for step in stage:
            rng = np.random.default_rng([14, step])
            grid = READING[int(rng.integers(len(READING)))]
            count = TILES // (grid[0] * grid[1])
            tiles = rng.choice(useful, (count, grid[0] * grid[1]), replace=False)
            images = compose(bank, tiles, grid, rng)
            with _half():
                encoded, said = self._encode(images.pixels, images.sizes)
                wanted = self._teach(bank, tiles, grid).float()
            signed = images.labels.colour > 0
            apart = functional.mse_loss(said, wanted, reduction="none").mean(1) / wanted.var()
            alike = apart[signed].mean() + 0.3 * apart[~signed].mean()
            stage.learn(self._naming(encoded, images.labels) + alike)
            if (step + 1) % 50 == 0 or step + 1 == steps:
                stage.log(step + 1, alike=alike.item(), **self._held_out(bank, training))

    @torch.inference_mode()
    def _held_out(self, bank: Bank, first: int) -> dict[str, float]:
        """Shares of right names over the tiles that only measure, put together to images of nine."""
        tiles = np.arange(first, first + 36 * 9).reshape(36, 9)
        images = compose(bank, tiles, (3, 3), np.random.default_rng(0))
        named = self._named(self._encode(images.pixels, images.sizes)[0])
        digit, place, colour, digits = (part.argmax(-1) for part in named)
        wanted = images.labels
        return {
            "patch_digit": share_right(digit, wanted.patches[:, 0]),
            "patch_place": share_right(place, wanted.patches[:, 1]),
            "colour": share_right(colour, wanted.colour),
            "digit": share_right(digits, wanted.digits),
        }

    def answer(self, bank: Bank, steps: int, rows: int, rate: float, vision_rate: float) -> None:
        """The stage `answer`; rates are peaks of the matrices."""
        composer = Composer(bank)

        def draw(rng: np.random.Generator) -> tuple[Composed, Batch]:
            grid = GRIDS["train"][int(rng.integers(len(GRIDS["train"])))]
            drawn = [composer.tiles(rng, grid[0] * grid[1]) for _ in range(rows)]
            tiles = np.stack([tokens[::TOKENS] // TOKENS for tokens, _ in drawn])
            batch = self.prompts.native_batch([tokens_of(grid)], [questions for _, questions in drawn])
            return compose(bank, tiles, grid, rng), batch

        self._answer(self._stage("answer", steps, rate, vision_rate), draw, 0.3)

    def painted(self, steps: int, rows: int, rate: float, vision_rate: float) -> None:
        """The stage `painted`; the same."""

        def draw(rng: np.random.Generator) -> tuple[Composed, Batch]:
            images = 2 if rng.random() < PAIRS else 1
            grid = PAIR_GRID if images == 2 else GRIDS["train"][int(rng.integers(len(GRIDS["train"])))]
            requests = [scenes(rng, "train", images, grid) for _ in range(rows)]
            together = [scene for request in requests for scene in request]
            pictures = np.stack([np.asarray(paint(scene)) for scene in together])
            found = [_in_order(labels(scene), grid) for scene in together]
            named = Labels(*(torch.from_numpy(np.concatenate(part)) for part in zip(*found, strict=True)))
            asked = [
                [ask(rng, [sign for scene in request for sign in scene.signs]) for _ in range(QUESTIONS)]
                for request in requests
            ]
            composed = Composed(patches(pictures), sizes(grid, len(together)), named)
            return composed, self.prompts.native_batch([tokens_of(grid)] * images, asked)

        self._answer(self._stage("painted", steps, rate, vision_rate), draw, 0.1)

    def _answer(self, stage: Stage, draw: Draw, weight: float) -> None:
        """weight: of the loss that makes the encoder name what it sees."""
        for step in stage:
            rng = np.random.default_rng([15, step])
            images, batch = draw(rng)
            rows = len(batch.ids)
            with _half():
                encoded, said = self._encode(images.pixels, images.sizes)
            visual = said.view(rows, -1, said.shape[-1])
            if step % 2:
                kept = torch.from_numpy(some_kept(rng, (images.labels.colour > 0).view(rows, -1).numpy()))
                batch, visual = drop_native(batch, kept), visual[kept].view(rows, -1, visual.shape[-1])
            with _half():
                logits = answer_logits(self.model, batch, visual).float()
            loss = functional.cross_entropy(logits, batch.targets[batch.targets != IGNORED])
            stage.learn(loss + weight * self._naming(encoded, images.labels))
            if (step + 1) % 25 == 0 or step + 1 == stage.steps:
                share = exact(logits.detach(), batch).float().mean().item()
                stage.log(step + 1, loss=loss.item(), exact=share)
            if (step + 1) % 500 == 0 or step + 1 == stage.steps:
                stage.log(step + 1, **self.test(200))

    @torch.inference_mode()
    def test(self, count: int) -> dict[str, float]:
        """Exact match over the first `count` examples of the test split, in all and per kind."""
        right: dict[str, list[bool]] = {"test": []}
        for number in tqdm(range(count), "testing", mininterval=5):
            made = example("test", number)
            pixels = [patches(np.asarray(paint(scene))[None]) for scene in made.scenes]
            grids = [scene.grid for scene in made.scenes]
            encoded = self._encode(torch.cat(pixels), torch.cat([sizes(grid, 1) for grid in grids]))[1]
            batch = self.prompts.native_batch([*map(tokens_of, grids)], [[made.question]])
            found = bool(exact(answer_logits(self.model, batch, encoded[None]), batch)[0])
            right["test"].append(found)
            right.setdefault(f"test_{made.question.kind}", []).append(found)
        return {name: float(np.mean(values)) for name, values in right.items()}


def _in_order(found: tuple, grid: Grid) -> Iterator[np.ndarray]:
    """Labels of a scene's tiles, in the order of an image's patches and tokens."""
    colour, digits, of_patches, _ = found
    yield of_patches.reshape(-1, 2)[patch_order(grid)]
    yield colour.ravel()[token_order(grid)]
    yield digits.reshape(-1, digits.shape[-1])[token_order(grid)]
