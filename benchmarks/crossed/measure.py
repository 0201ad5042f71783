"""One question under every setting."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from tools.reference import select
from tools.sign_reading import Example
from tools.sign_reading.scene import paint
from tools.sign_reading.training.decoder import answer_logits, exact
from vllm_sgl.config import Views
from vllm_sgl.visual.layout import Layout
from vllm_sgl.visual.transfer import Transfer

from .readers import Reader

VIEWS: tuple[Views, ...] = ("joint", "separate", "finest")
RETENTIONS = (0.35, 0.18, 0.09)
#: The longest answer: three digits and the end.
_ANSWER = 8


@dataclass(frozen=True)
class Setting:
    """guide: its name, None for nobody: retention 1 is the large model alone, below it random tokens.
    views: how the large model's views rank against each other. retention: 0 is the guide's own answer."""

    guide: str | None
    views: Views | None
    retention: float


@dataclass
class Measured:
    """One entry per question. right: whether its answer is. looked: visual tokens that the guide saw."""

    right: list[bool] = field(default_factory=list)
    looked: list[int] = field(default_factory=list)

    def row(self, large: str, setting: Setting) -> dict[str, Any]:
        return {
            "large": large,
            "guide": setting.guide,
            "guide_tokens": float(np.mean(self.looked)) if self.looked else None,
            "views": setting.views,
            "retention": setting.retention,
            "questions": len(self.right),
            "accuracy": float(np.mean(self.right)),
            "accuracy_se": float(np.std(self.right, ddof=1) / len(self.right) ** 0.5),
            "right": "".join(str(int(right)) for right in self.right),  # question by question
        }


class Large:
    """The large model about one question: everything that does not depend on what is kept."""

    def __init__(self, reader: Reader, pictures: Sequence[Image.Image], example: Example) -> None:
        self.reader = reader
        self.layouts = [reader.layout(picture) for picture in pictures]
        self.batch = reader.batch(self.layouts, example.question)
        #: Where every image is shown once, nothing ranks against anything.
        self.views = VIEWS if any(len(layout.views) > 1 for layout in self.layouts) else VIEWS[:1]
        images = map(reader.image, pictures)
        self.visual = torch.cat([reader.reference.visual_features(image) for image in images])

    @torch.inference_mode()
    def right(self, keep: Sequence[torch.Tensor] | None) -> bool:
        """Whether the greedy answer is the right one, word for word.

        Args:
            keep: per image the indices of its kept visual tokens; None keeps all.
        """
        batch, visual = self.batch, self.visual
        if keep is not None:
            counts = [layout.visual_tokens for layout in self.layouts]
            kept = [torch.zeros(n).bool().index_fill(0, i, True) for n, i in zip(counts, keep, strict=True)]
            row = torch.cat(kept)
            batch, visual = self.reader.drop(batch, row[None]), visual[row]
        return bool(exact(answer_logits(self.reader.reference.model, batch, visual[None]), batch)[0])


@dataclass(frozen=True)
class Look:
    """What a guide saw: one importance [its visual tokens] per image, and whether its own answer is right."""

    layouts: list[Layout]
    importance: list[torch.Tensor]
    right: bool

    @classmethod
    def of(cls, reader: Reader, pictures: Sequence[Image.Image], example: Example) -> "Look":
        layouts = [reader.layout(picture) for picture in pictures]
        images = [reader.image(picture) for picture in pictures]
        ids = reader.prompt(layouts, example.question)
        answer = reader.reference.generate(ids, images, _ANSWER)
        text = reader.reference.tokenizer.decode(answer.tokens, skip_special_tokens=True)
        importance = reader.reference.importance(ids, images, answer.tokens)
        return cls(layouts, importance, text == example.question.answer)

    def carried(self, layouts: Sequence[Layout], views: Views) -> list[torch.Tensor]:
        """The importance of another model's visual tokens of the same images."""
        parts = zip(self.layouts, layouts, self.importance, strict=True)
        return [Transfer(own, other).importance(values, views) for own, other, values in parts]


def measure(
    large: Reader, guides: Sequence[Reader], examples: Iterable[Example], seed: int = 0
) -> dict[Setting, Measured]:
    """Every question under every setting. seed: of random tokens."""
    found: dict[Setting, Measured] = defaultdict(Measured)
    for number, example in enumerate(tqdm(examples, large.name, unit="question", mininterval=5)):
        pictures = [paint(scene) for scene in example.scenes]
        asked = Large(large, pictures, example)
        found[Setting(None, None, 1)].right.append(asked.right(None))
        for guide in guides:
            look = Look.of(guide, pictures, example)
            found[Setting(guide.name, None, 0)].right.append(look.right)
            for views, retention in product(asked.views, RETENTIONS):
                carried = look.carried(asked.layouts, views)
                measured = found[Setting(guide.name, views, retention)]
                measured.right.append(asked.right(select(carried, retention, large.reference.least)))
                measured.looked.append(sum(map(len, look.importance)))
        drawn = torch.rand(len(asked.visual), generator=torch.Generator().manual_seed(seed + number))
        random = drawn.split([layout.visual_tokens for layout in asked.layouts])
        for retention in RETENTIONS:
            kept = select(random, retention, large.reference.least)
            found[Setting(None, None, retention)].right.append(asked.right(kept))
    return dict(found)
