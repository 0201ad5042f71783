"""The later stages: connector and decoder learn to answer, first on the frozen encoder's features.

few       a few visual tokens, all of them useful; codes of one digit, then two, then three
tiles     whole images put together from the bank (the large model's encoder learns more before that)
joint     painted scenes with thumbnail, everything unfrozen, the encoder at a low rate
drop      the same with most visual tokens missing, at their original positions (the large model only)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from transformers import InternVLForConditionalGeneration

from ..scene import COLOURS
from .bank import SLOTS, Bank
from .compose import Composer, Drawn
from .painted import Painted
from .progress import Stage, optimizers
from .prompts import IGNORED, Batch, Prompts, drop
from .vision import features, normalise

FEW = 28
TILES = 9


class Naming(nn.Module):
    """A small extra loss: embedded visual tokens name their colour and digits, in the words' own embeddings.

    Thrown away after training.
    """

    def __init__(self, hidden: int, prompts: Prompts) -> None:
        super().__init__()
        ids = prompts.tokenizer.token_to_id
        self.register_buffer("words", torch.tensor([ids(f"Ġ{c}") for c in COLOURS]), persistent=False)
        self.register_buffer("figures", torch.tensor([ids(str(n)) for n in range(10)]), persistent=False)
        self.place = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(SLOTS))
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(
        self, visual: torch.Tensor, embedding: torch.Tensor, colour: torch.Tensor, digits: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy over labelled tokens.

        Args:
            visual: [rows, tokens, hidden].
            embedding: the decoder's, [vocabulary, hidden].
            colour: [rows, tokens], 0 for no sign.
            digits: [rows, tokens, 3], 0 for no digit.
        """
        visual = functional.normalize(visual, dim=-1)
        words = functional.normalize(embedding[self.words], dim=-1)
        figures = functional.normalize(embedding[self.figures], dim=-1)
        scale = self.scale.exp().clamp(max=30)
        loss = functional.cross_entropy(scale * visual[colour > 0] @ words.T, colour[colour > 0] - 1)
        for place, head in enumerate(self.place):
            written = digits[..., place] > 0
            if written.any():
                read = functional.normalize(head(visual[written]), dim=-1)
                loss = loss + functional.cross_entropy(
                    scale * read @ figures.T, digits[..., place][written] - 1
                )
        return loss


def answer_logits(
    model: InternVLForConditionalGeneration, batch: Batch, visual: torch.Tensor
) -> torch.Tensor:
    """Logits [answer tokens, vocabulary] for embedded visual tokens [rows, tokens, hidden]."""
    embedded = model.get_input_embeddings()(batch.ids)
    embedded[batch.visual] = visual.flatten(0, 1)
    output = model.model.language_model(
        inputs_embeds=embedded, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    )
    return model.lm_head(output.last_hidden_state[batch.targets != IGNORED])


def exact(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Whether every token of an answer is the likeliest one, bool [questions]: the greedy answer is right."""
    answers = batch.targets != IGNORED
    right = logits.argmax(-1) == batch.targets[answers]
    rows = torch.arange(len(batch.ids), device=right.device)[:, None].expand_as(batch.ids)
    _, question = torch.stack([rows[answers], batch.question[answers]]).unique(dim=1, return_inverse=True)
    wrong = torch.zeros(int(question.max()) + 1, device=right.device).index_add(0, question, (~right).float())
    return wrong == 0


def some_kept(rng: np.random.Generator, signed: np.ndarray) -> np.ndarray:
    """All tokens with a sign and random others, bool like `signed` [rows, visual tokens].

    Every row keeps equally many: a random share from 5 % to all, or what the signs need.
    """
    count = max(signed.sum(1).max(), round(rng.uniform(0.05, 1) * signed.shape[1]))
    order = np.argsort(rng.random(signed.shape) - signed, axis=1)
    kept = np.zeros_like(signed)
    np.put_along_axis(kept, order[:, :count], True, axis=1)
    return kept


class Decoder:
    """Trains one model, stage after stage."""

    def __init__(
        self, model: InternVLForConditionalGeneration, prompts: Prompts, directory: Path, rate: float
    ) -> None:
        self.model, self.prompts, self.directory, self.rate = model, prompts, directory, rate
        self.device = model.device
        self.naming = Naming(model.config.text_config.hidden_size, prompts).to(self.device)
        self.parts = nn.ModuleDict({"model": model, "naming": self.naming})
        self._encoded: torch.Tensor | None = None  # the bank, by the frozen encoder

    def _stage(self, name: str, steps: int, rate: float, vision_rate: float = 0.0) -> Stage:
        tower = self.model.model.vision_tower
        tower.requires_grad_(vision_rate > 0)
        by_muon = [p for name, p in self.model.named_parameters() if p.ndim == 2 and ".layer" in name]
        in_tower, in_muon = ({id(p) for p in group} for group in (tower.parameters(), by_muon))

        def group(muon: bool, vision: bool, lr: float) -> dict[str, Any]:
            parts = (p for p in self.parts.parameters() if (id(p) in in_muon) == muon)
            return {"params": [p for p in parts if (id(p) in in_tower) == vision], "lr": lr}

        muon, adam = [group(True, False, rate)], [group(False, False, 0.5 * rate)]
        if vision_rate:
            muon.append(group(True, True, vision_rate))
            adam.append(group(False, True, 0.5 * vision_rate))
        return Stage(name, steps, self.directory, self.parts, optimizers(muon, adam))

    def _learn(
        self, stage: Stage, step: int, batch: Batch, visual: torch.Tensor, naming: torch.Tensor | float
    ) -> None:
        logits = answer_logits(self.model, batch, visual)
        loss = functional.cross_entropy(logits, batch.targets[batch.targets != IGNORED])
        stage.learn(loss + naming)
        if (step + 1) % 50 == 0 or step + 1 == stage.steps:
            share = exact(logits.detach(), batch).float().mean().item()
            stage.log(step + 1, loss=loss.item(), naming=torch.as_tensor(naming).item(), exact=share)

    @torch.inference_mode()
    def encode(self, bank: Bank) -> torch.Tensor:
        """The connector's input for every visual token of the bank, float16 [tiles * 16, 4 * width]."""
        encoded = []
        for start in tqdm(range(0, len(bank), 256), desc="encoding the bank", mininterval=5):
            encoded.append(
                features(self.model, normalise(bank.pixels[start : start + 256]).to(self.device)).half()
            )
        return torch.cat(encoded).flatten(0, 1)

    def few(self, bank: Bank, steps: int, rows: int) -> None:
        """The stage `few`: codes of one digit for a fifth of the steps, of at most two for another fifth."""

        def draw(composer: Composer, rng: np.random.Generator, done: float) -> Drawn:
            if done < 0.2:
                return composer.few(rng, FEW, 1, "code")
            if done < 0.4:
                return composer.few(rng, FEW, 2, "code")
            return composer.few(rng, FEW, 3, None)

        self._frozen(self._stage("few", steps, self.rate), bank, rows, 5, 0.2, draw)

    def tiles(self, bank: Bank, steps: int, rows: int) -> None:
        """The stage `tiles`."""

        def draw(composer: Composer, rng: np.random.Generator, done: float) -> Drawn:
            return composer.tiles(rng, TILES)

        self._frozen(self._stage("tiles", steps, 0.5 * self.rate), bank, rows, 6, 0.1, draw)

    def _frozen(
        self,
        stage: Stage,
        bank: Bank,
        rows: int,
        seed: int,
        weight: float,
        draw: Callable[[Composer, np.random.Generator, float], Drawn],
    ) -> None:
        """Train on the frozen encoder's features of images that `draw` puts together.

        Args:
            weight: of the loss that makes visual tokens name what they show.
            draw: of a composer, a generator and the share of the stage that is done.
        """
        if stage.first == stage.steps:
            return
        assert not any(weight.requires_grad for weight in self.model.model.vision_tower.parameters())
        if self._encoded is None:
            self._encoded = self.encode(bank)
        encoded = self._encoded
        composer = Composer(bank)
        colour = torch.from_numpy(bank.colour).flatten().to(self.device)
        digits = torch.from_numpy(bank.digits).flatten(0, 1).to(self.device)
        for step in stage:
            rng = np.random.default_rng([seed, step])
            drawn = [draw(composer, rng, step / stage.steps) for _ in range(rows)]
            tokens = torch.from_numpy(np.stack([tokens for tokens, _ in drawn])).to(self.device)
            batch = self.prompts.batch([tokens.shape[1]], [questions for _, questions in drawn])
            batch = batch.to(self.device)
            visual = self.model.model.multi_modal_projector(encoded[tokens].float())
            embedding = self.model.get_input_embeddings().weight
            naming = weight * self.naming(visual, embedding, colour[tokens], digits[tokens])
            self._learn(stage, step, batch, visual, naming)

    def painted(
        self, name: str, steps: int, rows: int, rate: float, vision_rate: float, dropping: bool
    ) -> None:
        """The stages `joint` and `drop`: painted scenes.

        Args:
            dropping: visual tokens without a sign go missing, up to 95 % of all, so that every answer stays
                right.
        """
        stage = self._stage(name, steps, rate, vision_rate)
        source = Painted("train", self.prompts)
        for step in stage:
            rng = np.random.default_rng([7, step])
            pixels, batch, signed = source.draw(rng, rows)
            batch = batch.to(self.device)
            visual = self.model.model.multi_modal_projector(features(self.model, pixels.to(self.device)))
            visual = visual.view(rows, -1, visual.shape[-1])
            if dropping:
                kept = torch.from_numpy(some_kept(rng, signed)).to(self.device)
                batch, visual = drop(batch, kept), visual[kept].view(rows, -1, visual.shape[-1])
            self._learn(stage, step, batch, visual, 0.0)
            if (step + 1) % 400 == 0 or step + 1 == steps:
                stage.log(step + 1, **self.test(200))

    @torch.inference_mode()
    def test(self, count: int) -> dict[str, float]:
        """Exact match over the first `count` examples of the test split, in all and per kind."""
        source = Painted("test", self.prompts)
        right: dict[str, list[bool]] = {"test": []}
        for number in range(count):
            kind, pixels, batch = source.example(number)
            batch = batch.to(self.device)
            visual = self.model.model.multi_modal_projector(features(self.model, pixels.to(self.device)))
            found = bool(exact(answer_logits(self.model, batch, visual.flatten(0, 1)[None]), batch)[0])
            right["test"].append(found)
            right.setdefault(f"test_{kind}", []).append(found)
        return {name: float(np.mean(values)) for name, values in right.items()}
