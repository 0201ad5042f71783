"""SGL's quantities computed outside of vLLM, the slow and certain way.

One unbatched float32 forward pass of transformers' own model for everything, no KV cache, attention
probabilities read from the model's own output. Formulas: "A Stitch in Time Saves Nine: Small VLM is
a Precise Guidance for Accelerating Large VLMs" (arXiv 2412.03324).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel

Positions = Literal["original", "packed"]
QueryRows = Literal[
    "last_turn+generated", "prompt+generated", "last_prompt+generated", "last_turn", "prompt", "last_prompt",
    "generated",
]  # fmt: skip
Keep = Sequence[torch.Tensor] | None
#: Visual tokens added in later places: (image, the row of the whole prompt in front of which they stand,
#: ascending indices), in the order in which they stand there.
Late = Sequence[tuple[int, int, torch.Tensor]]
Image = torch.Tensor | Mapping[str, torch.Tensor]


class Generated(NamedTuple):
    """A greedy answer: token ids (the end token included) and their log-probabilities [n]."""

    tokens: list[int]
    logprobs: torch.Tensor


class _Prompt(NamedTuple):
    """A prompt as the decoder sees it, after pruning."""

    embeddings: torch.Tensor  # [rows, hidden]
    positions: torch.Tensor  # [rows], or [3, rows] where the model has M-RoPE
    next_position: int
    visual_rows: list[torch.Tensor]  # per image, row numbers of its kept visual tokens
    seen_rows: torch.Tensor  # [rows] bool, whether a row is a visual token
    deepstack: tuple[torch.Tensor, ...] = ()  # per decoder layer, what is added to the visual rows


def select(importance: Sequence[torch.Tensor], retention: float, least: int = 0) -> list[torch.Tensor]:
    """Per image, the ascending indices of the max(1, floor(R * N)) best visual tokens.

    Tokens are ranked jointly over the images; ties go to the lower index.

    Args:
        least: tokens that every image keeps, its own best, whatever their rank among all.
    """
    scores = torch.cat(list(importance))
    count = max(1, int(retention * len(scores)))
    order = sorted(range(len(scores)), key=lambda index: (-scores[index].item(), index))
    image_of = [image for image, part in enumerate(importance) for _ in part]
    first = [
        [index for index in order if image_of[index] == image][:least] for image in range(len(importance))
    ]
    must = [index for indices in first for index in indices]
    rest = [index for index in order if index not in must]
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[must + rest[: max(0, count - len(must))]] = True
    sizes = [len(part) for part in importance]
    return [part.nonzero().flatten() for part in kept.split(sizes)]


def confidence(logprobs: torch.Tensor) -> float:
    """Geometric mean of the answer's token probabilities."""
    return logprobs.double().mean().exp().item()


class Reference:
    """A checkpoint run by transformers in float32. One subclass per family, in a file of its own.

    An image or video is whatever the subclass's :meth:`features` takes: what the family's processor makes of
    one. Where "images" are asked for, a prompt's videos are among them, in prompt order.

    Attributes:
        video_token: what stands in a prompt for each visual token of a video; None where the config says it.
        markers: tokens that a processor puts before and after an image's visual tokens.
        least: visual tokens that an image keeps at least; an engine cannot take an empty range.
    """

    markers: tuple[str, str] | None = None
    least = 1
    video_token: str | None = None

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
        self.eos_token_id = self.tokenizer.eos_token_id
        self.model = self.load()

    def load(self) -> PreTrainedModel:
        """The model in evaluation mode, eager attention; here from files that transformers reads itself.

        Raises:
            ValueError: where a tensor of the checkpoint or of the model is left over.
        """
        model, report = AutoModelForImageTextToText.from_pretrained(
            self.path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        if leftover := {kind: names for kind, names in report.items() if names}:
            raise ValueError(f"{self.path}: tensors do not match the model: {leftover}")
        return model.eval()

    def masks(self, mask: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor | None]:
        """The causal mask [1, 1, rows, rows] as transformers' decoder takes it."""
        return mask

    @property
    def image_token_id(self) -> int:
        """The token that stands in a prompt for each visual token."""
        return self.model.config.image_token_id

    @property
    def video_token_id(self) -> int | None:
        """The token that stands in a prompt for each visual token of a video; None without videos."""
        if self.video_token is None:
            return getattr(self.model.config, "video_token_id", None)
        return self.tokenizer.get_vocab().get(self.video_token)

    def features(self, image: Image) -> list[torch.Tensor]:
        """An image's visual tokens [n, hidden] and, for DeepStack (arXiv 2406.04334), as many more of the
        same shape as there are decoder layers to whose outputs they are added."""
        raise NotImplementedError

    def positions(self, token_ids: torch.Tensor, images: Sequence[Image]) -> tuple[torch.Tensor, int]:
        """Position ids of a whole prompt, [tokens] or [3, tokens] (M-RoPE), and the next one after it."""
        return torch.arange(len(token_ids)), len(token_ids)

    @torch.inference_mode()
    def visual_features(self, image: Image) -> torch.Tensor:
        """Visual tokens [n, hidden] of one image, as the decoder's first layer sees them."""
        return self.features(image)[0]

    @torch.inference_mode()
    def generate(
        self,
        prompt_token_ids: Sequence[int],
        images: Sequence[Image],
        max_new_tokens: int,
        keep: Keep = None,
        positions: Positions = "original",
        late: Late = (),
    ) -> Generated:
        """Greedy answer; `keep` holds per image the ascending indices of its kept visual tokens, `late` those
        that stand in front of later rows, at the positions that they have in their image."""
        prompt = self._prompt(prompt_token_ids, images, keep, positions, late)
        tokens: list[int] = []
        logprobs = []
        while len(tokens) < max_new_tokens and (not tokens or tokens[-1] != self.eos_token_id):
            row = self._forward(prompt, tokens)[0][-1].log_softmax(-1)
            tokens.append(int(row.argmax()))
            logprobs.append(row[tokens[-1]])
        return Generated(tokens, torch.stack(logprobs))

    @torch.inference_mode()
    def teacher_forced_logprobs(
        self,
        prompt_token_ids: Sequence[int],
        images: Sequence[Image],
        answer_token_ids: Sequence[int],
        keep: Keep = None,
        positions: Positions = "original",
    ) -> torch.Tensor:
        """Log-probability [n] of each token of a given answer, in one forward pass."""
        prompt = self._prompt(prompt_token_ids, images, keep, positions)
        answer = list(answer_token_ids)
        logits = self._forward(prompt, answer[:-1])[0][-len(answer) :]
        return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).flatten()

    @torch.inference_mode()
    def importance(
        self,
        prompt_token_ids: Sequence[int],
        images: Sequence[Image],
        generated_token_ids: Sequence[int],
        query_rows: QueryRows = "prompt+generated",
        last_turn: int = 0,
    ) -> list[torch.Tensor]:
        """Per image, the attention its visual tokens [n] receive, float32.

        Summed over all layers and heads, and over the query rows that `query_rows` names: every prompt
        token after the last visual token, or the prompt's last token; and every generated token but the
        last, which is never fed back. Those of the last turn begin at position `last_turn`. The default is
        the paper's. Where there is no such row, the prompt's last one counts.
        """
        prompt = self._prompt(prompt_token_ids, images, None, "original")
        _, attentions = self._forward(prompt, list(generated_token_ids[:-1]), attention=True)
        # Each of attentions is [1, heads, query rows, keys].
        _, heads, all_rows, _ = attentions[0].shape
        after_prompt = len(prompt.embeddings)
        last_prompt = [after_prompt - 1]
        prompt_rows = list(range(int(prompt.visual_rows[-1][-1]) + 1, after_prompt))
        generated = list(range(after_prompt, all_rows))
        turn = [row for row in prompt_rows if row >= last_turn]
        rows = {
            "last_turn+generated": turn + generated,
            "last_turn": turn,
            "prompt+generated": prompt_rows + generated,
            "last_prompt+generated": last_prompt + generated,
            "prompt": prompt_rows,
            "last_prompt": last_prompt,
            "generated": generated,
        }[query_rows] or last_prompt
        mass = sum(layer[0, :, rows].double().sum((0, 1)) for layer in attentions)
        expected = len(attentions) * heads * len(rows)
        assert abs(mass.sum().item() - expected) < 1e-5 * expected, (mass.sum().item(), expected)
        return [mass[row_numbers].float() for row_numbers in prompt.visual_rows]

    def consistency(
        self,
        prompt_token_ids: Sequence[int],
        images: Sequence[Image],
        answer_token_ids: Sequence[int],
        retention: float = 0.05,
        positions: Positions = "original",
        query_rows: QueryRows = "prompt+generated",
    ) -> float:
        """Probability of the answer when only the most important visual tokens are shown."""
        scores = self.importance(prompt_token_ids, images, answer_token_ids, query_rows)
        logprobs = self.teacher_forced_logprobs(
            prompt_token_ids, images, answer_token_ids, select(scores, retention, self.least), positions
        )
        return logprobs.double().sum().exp().item()

    def _prompt(
        self, token_ids: Sequence[int], images: Sequence[Image], keep: Keep, positions: Positions,
        late: Late = (),
    ) -> _Prompt:  # fmt: skip
        ids = torch.tensor(token_ids)
        embeddings = self.model.get_input_embeddings()(ids)
        features = [self.features(image) for image in images]
        standing = [token for token in (self.image_token_id, self.video_token_id) if token is not None]
        visual = torch.isin(ids, torch.tensor(standing)).nonzero().flatten()
        sizes = [len(layers[0]) for layers in features]
        assert len(visual) == sum(sizes), "placeholders and features differ"
        kept_row = torch.ones(len(ids), dtype=torch.bool)
        kept_places, deeper_rows = [], {}
        for image, places in enumerate(visual.split(sizes)):
            first, *deeper = features[image]
            embeddings[places] = first
            kept = torch.arange(len(places)) if keep is None else torch.as_tensor(keep[image]).long()
            kept_row[places] = False
            kept_row[places[kept]] = True
            kept_places.append(places[kept])
            deeper_rows |= {int(row): layers for row, *layers in zip(places, *deeper, strict=True)}
        rows = kept_row.nonzero().flatten().tolist()
        for image, at, indices in late:
            added = visual.split(sizes)[image][indices].tolist()
            index = rows.index(at) if at < len(ids) else len(rows)
            rows[index:index] = added
        order = torch.tensor(rows)
        new_row = {row: new for new, row in enumerate(rows)}
        deepstack = [deeper_rows[row] for row in rows if deeper_rows.get(row)]
        own, after = self.positions(ids, images)
        if packed := positions == "packed":
            if own.dim() == 2:
                raise ValueError("packed positions mean nothing to a model with M-RoPE: ask for 'original'")
            own, after = torch.arange(len(order)), len(order)
        return _Prompt(
            embeddings=embeddings[order],
            positions=own if packed else own[..., order],
            next_position=after,
            visual_rows=[
                torch.tensor([new_row[int(row)] for row in places], dtype=torch.int64)
                for places in kept_places
            ],
            deepstack=tuple(torch.stack(layer) for layer in zip(*deepstack, strict=True)),
            seen_rows=torch.isin(order, visual),
        )

    def _forward(
        self, prompt: _Prompt, generated: Sequence[int], attention: bool = False
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
        """Logits [rows, vocabulary] and, on request, attention probabilities of every layer."""
        fed = torch.tensor(list(generated), dtype=torch.long)
        embeddings = torch.cat([prompt.embeddings, self.model.get_input_embeddings()(fed)])
        after = prompt.next_position + torch.arange(len(fed))
        positions = torch.cat([prompt.positions, after.expand(*prompt.positions.shape[:-1], -1)], dim=-1)
        rows = len(embeddings)
        # Without a mask transformers takes a gap in the positions for the border between two packed
        # sequences and blocks attention across it.
        mask = torch.full((rows, rows), torch.finfo(torch.float32).min).triu(1)
        extra = {}
        if prompt.deepstack:
            visual = torch.zeros(1, rows, dtype=torch.bool)
            visual[0, : len(prompt.seen_rows)] = prompt.seen_rows
            extra = {"visual_pos_masks": visual, "deepstack_visual_embeds": list(prompt.deepstack)}
        output = self.model.model.language_model(
            inputs_embeds=embeddings[None],
            position_ids=positions[..., None, :],
            attention_mask=self.masks(mask[None, None]),
            use_cache=False,
            output_attentions=attention,
            **extra,
        )
        return self.model.lm_head(output.last_hidden_state[0]), output.attentions
