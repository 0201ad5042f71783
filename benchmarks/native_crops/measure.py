"""Every question under every setting, and answers at equal cost."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from benchmarks.crossed.measure import Look
from benchmarks.crossed.readers import Reader
from tools.sign_reading import Example
from tools.sign_reading.scene import CELL, paint

from .asked import Asked, Shown
from .cost import MODELS
from .settings import Setting, alone, guided, show

#: What stands for importance where nobody guesses: how near a token is to a sign that holds the answer.
KNOWN = "the answer's place known"
Floats = npt.NDArray[np.float64]


@dataclass
class Measured:
    """One entry per question. kinds: of question. costs: by model, the prefill relative to the unpruned."""

    right: list[bool] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    encoded: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    costs: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, asked: Asked, shown: Shown) -> None:
        self.right.append(asked.right(shown))
        self.kinds.append(asked.example.question.kind)
        self.encoded.append(sum(shown.encoded) / sum(asked.tokens))
        self.kept.append(shown.kept / sum(asked.tokens))
        for name, model in MODELS.items():
            self.costs[name].append(model.prefill(asked.tokens, shown.encoded, shown.kept))

    def row(self, setting: Setting) -> dict[str, Any]:
        accuracy, error = mean(self.right)
        kinds = np.asarray(self.kinds)
        return {
            "guide": setting.ranking,
            "way": setting.way,
            "budget_encoded": setting.encoded,
            "budget_kept": setting.kept,
            "questions": len(self.right),
            "encoded": float(np.mean(self.encoded)),
            "kept": float(np.mean(self.kept)),
            **{f"cost_{name}": float(np.mean(costs)) for name, costs in self.costs.items()},
            "accuracy": accuracy,
            "accuracy_se": error,
            **{
                f"accuracy_{kind}": float(np.mean(np.asarray(self.right)[kinds == kind]))
                for kind in sorted(set(self.kinds))
            },
            "right": "".join(str(int(right)) for right in self.right),  # question by question
        }


def measure(large: Reader, guides: Sequence[Reader], examples: Iterable[Example]) -> dict[Setting, Measured]:
    """guides: the first under all settings, the others and KNOWN under those of crops and pruning alone."""
    found: dict[Setting, Measured] = defaultdict(Measured)
    for example in tqdm(examples, large.name, unit="question", mininterval=5):
        pictures = [paint(scene) for scene in example.scenes]
        asked = Asked(large, pictures, example)
        for setting in alone():
            found[setting].add(asked, show(asked, setting, []))
        seen = {
            guide.name: Look.of(guide, pictures, example).carried(asked.layouts, "joint") for guide in guides
        }
        for ranking, importance in {**seen, KNOWN: known(asked)}.items():
            for setting in guided(ranking, everything=ranking == guides[0].name):
                found[setting].add(asked, show(asked, setting, importance))
    return dict(found)


def known(asked: Asked) -> list[torch.Tensor]:
    """exp(-d), d the distance of a token from the nearest sign that holds the answer, in tokens."""
    found = []
    answers = asked.example.answer_boxes()
    for number, (layout, picture) in enumerate(zip(asked.layouts, asked.pictures, strict=True)):
        boxes = layout.boxes(*picture.size)
        distance = np.full(len(boxes), np.inf)
        for image, *sign in answers:
            if image == number:
                gaps = np.maximum(np.subtract(sign[:2], boxes[:, 2:]), np.subtract(boxes[:, :2], sign[2:]))
                distance = np.minimum(distance, np.hypot(*gaps.clip(0).T) / CELL)
        found.append(torch.from_numpy(np.exp(-distance)).float())
    return found


def mean(values: Sequence[bool] | npt.NDArray[Any]) -> tuple[float, float]:
    """And its standard error."""
    found = np.asarray(values, dtype=np.float64)
    return float(found.mean()), float(found.std(ddof=1) / len(found) ** 0.5)


def at_cost(curve: Iterable[Measured], model: str, cost: float) -> Floats | None:
    """How right every question is at a mean cost, between the two nearest settings of a curve in proportion:
    float64 [questions], or None where the curve does not reach so far."""
    points = sorted((float(np.mean(one.costs[model])), one.right) for one in curve)
    for (less, cheap), (more, dear) in pairwise(points):
        if less <= cost <= more and less < more:
            share = (cost - less) / (more - less)
            mixed: Floats = (1 - share) * np.asarray(cheap, float) + share * np.asarray(dear, float)
            return mixed
    return None


def equal_costs(
    found: Mapping[Setting, Measured], pruned: Sequence[Setting], cheaper: Sequence[float]
) -> list[dict[str, Any]]:
    """Every guided curve at the costs of some pruned settings, and at some costs that are lower.

    Returns:
        rows with the accuracy, and its difference to the pruned setting of equal cost or, where the costs are
        lower than any, to nothing left out; question by question, with standard errors.
    """
    curves: dict[Any, list[Measured]] = defaultdict(list)
    for setting, measured in found.items():
        curves[setting.curve].append(measured)
    full = next(measured for setting, measured in found.items() if setting.way == "all")
    rows = []
    for model in MODELS:
        bases = [(f"pruned to {one.kept}", np.mean(found[one].costs[model]), found[one]) for one in pruned]
        lowest = min(cost for _, cost, _ in bases)
        bases += [("all", cost, full) for cost in cheaper if cost < lowest]
        for against, cost, base in bases:
            for (ranking, way, part), curve in curves.items():
                right = at_cost(curve, model, float(cost))
                if right is None:
                    continue
                accuracy, error = mean(right)
                gain, gain_error = mean(right - np.asarray(base.right, float))
                rows.append(
                    {
                        "model": model, "cost": float(cost), "guide": ranking, "way": way, "part": part,
                        "accuracy": accuracy, "accuracy_se": error,
                        "against": against, "gain": gain, "gain_se": gain_error,
                    }
                )  # fmt: skip
    return rows
