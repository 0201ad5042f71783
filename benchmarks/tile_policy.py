"""The policy ``tiles``: what its answers are worth against what its tiles and tokens cost.

    python -m benchmarks.tile_policy [--questions 1600] [--out FILE]

The shipped pair answers sign questions at several retentions, with several shares of tokens that open tiles,
and with the plain ranking (``top``) at more retentions beside it. One look of the small model serves all
settings of a question. The first half of the questions is for choosing a rule, the second for checking it.

    cost = V * encoded tiles / tiles + (1 - V) * kept tokens / visual tokens

V is the vision encoder's share of the large model's prefill: 0.54 in InternVL2-26B (12 TFLOP of InternViT-6B
against 10 of the 20B decoder, per tile of 448 pixels and its 256 tokens). The guide costs the same everywhere
and is left out.
"""

import argparse
import asyncio
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks import report
from examples.demo.shipped import LARGE, MAX_TOKENS, SHIPPED_ARGS, SMALL
from tools import sign_reading
from vllm_sgl.core import GuideRequest, GuideResult
from vllm_sgl.evaluate.metrics import exact_match
from vllm_sgl.evaluate.questions import Question, load
from vllm_sgl.guide.base import Guide, GuideWrapper

#: The vision encoder's share of the cost, see above.
VISION = 0.54
#: Where the policy is asked: by its own rule, and with these parts of the retention as the opening share.
RETENTIONS = (0.5, 0.35, 0.25, 0.18, 0.09)
OPENINGS = (0.2, 0.3, 0.4, 0.5, 0.7)
#: Where the plain ranking is asked.
RANKED = (0.05, 0.09, 0.13, 0.18, 0.21, 0.25, 0.3, 0.35, 0.42, 0.5, 0.64)
_SEEDED_FROM = 200  # the test split's first questions are those of the other figures


@dataclass(frozen=True)
class Setting:
    """policy: as ``sgl_policy`` has it."""

    retention: float
    policy: str

    @property
    def keys(self) -> dict[str, Any]:
        """Of the request."""
        return {"sgl_retention": self.retention, "sgl_policy": self.policy}


SETTINGS = [
    *(Setting(retention, "top") for retention in RANKED),
    *(Setting(retention, "tiles") for retention in RETENTIONS),
    *(Setting(retention, f"tiles:{part * retention:.4g}") for retention in RETENTIONS for part in OPENINGS),
]


@dataclass
class Measured:
    """One entry per question. right: 0 or 1. tiles, tokens: shares encoded, and kept."""

    right: list[float] = field(default_factory=list)
    tiles: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def row(self, setting: Setting, ranked: "Measured | None", part: slice) -> dict[str, Any]:
        """Of some of the questions. ranked: the plain ranking at the same retention, question by question."""
        right = np.asarray(self.right[part])
        tiles, tokens = np.mean(self.tiles[part]), np.mean(self.tokens[part])
        row = {
            "retention": setting.retention,
            "policy": setting.policy,
            "questions": len(right),
            "accuracy": right.mean(),
            "accuracy_se": right.std(ddof=1) / len(right) ** 0.5,
            "encoded_tiles": tiles,
            "kept_tokens": tokens,
            "cost": VISION * tiles + (1 - VISION) * tokens,
            "against_top": None,
            "against_top_se": None,
        }
        if ranked is not None:
            gained = right - np.asarray(ranked.right[part])
            row |= {
                "against_top": gained.mean(),
                "against_top_se": gained.std(ddof=1) / len(gained) ** 0.5,
            }
        return {
            name: float(value) if isinstance(value, np.floating) else value for name, value in row.items()
        }


class LookOnce(GuideWrapper):
    """Looks once at each prompt, however often it is asked."""

    def __init__(self, guide: Guide) -> None:
        super().__init__(guide)
        self._looks: dict[Any, asyncio.Task[GuideResult]] = {}

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        prompt = request.prompt
        key = (tuple(prompt["prompt_token_ids"]), *prompt["mm_hashes"]["image"])
        if key not in self._looks:
            self._looks[key] = asyncio.create_task(self._guide.look(request, answer_tokens))
        return await self._looks[key]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tile_policy", description=__doc__)
    parser.add_argument("--questions", type=int, default=1600, help="of the signs' test split")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    environment = report.environment()
    report.print_environment(environment)
    with tempfile.TemporaryDirectory(prefix="tile-policy-") as folder:
        path = sign_reading.write("test", _SEEDED_FROM + options.questions, Path(folder))
        found = measure(load(path)[_SEEDED_FROM:])
    half = options.questions // 2
    rows = []
    for name, part in (("choosing", slice(0, half)), ("checking", slice(half, None))):
        for setting in SETTINGS:
            ranked = None if setting.policy == "top" else found[Setting(setting.retention, "top")]
            rows.append({"half": name, **found[setting].row(setting, ranked, part)})
    report.print_table(rows)
    if options.out is not None:
        report.write_json(options.out, {**environment, "vision_share": VISION}, rows)


def measure(questions: Iterable[Question]) -> dict[Setting, Measured]:
    """Every question under every setting."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import SamplingParams

    from vllm_sgl import LLM

    llm = LLM(
        str(LARGE), sgl_small=str(SMALL), wrap_guide=LookOnce, sgl_on_error="fail", sgl_break_even="off",
        **SHIPPED_ARGS,
    )  # fmt: skip
    params = [SamplingParams(temperature=0, max_tokens=MAX_TOKENS, extra_args=one.keys) for one in SETTINGS]
    found: dict[Setting, Measured] = defaultdict(Measured)
    try:
        for question in tqdm(questions, unit="question"):
            outputs = llm.chat([_conversation(question)] * len(params), params, use_tqdm=False)
            for setting, output in zip(SETTINGS, outputs, strict=True):
                sgl = output.sgl
                if sgl.decision != "prune":
                    raise RuntimeError(f"expected the decision 'prune', received {sgl.as_dict()}")
                measured = found[setting]
                measured.right.append(exact_match(output.outputs[0].text, question.answers))
                measured.tiles.append(sgl.encoded_tiles / sgl.tiles)
                measured.tokens.append(sgl.kept_tokens / sgl.visual_tokens)
    finally:
        llm.shutdown()
    return found


def _conversation(question: Question) -> list[dict[str, Any]]:
    images = [{"type": "image_pil", "image_pil": Image.open(path).convert("RGB")} for path in question.images]
    return [{"role": "user", "content": [*images, {"type": "text", "text": question.text}]}]


if __name__ == "__main__":
    main()
