"""What must hold before a figure is worth printing: crops are drawn and placed as they should be."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.crossed.measure import Large
from benchmarks.crossed.readers import Reader
from tools.sign_reading import Example
from tools.sign_reading.native.images import patches
from tools.sign_reading.scene import paint

from .asked import Asked
from .measure import Measured
from .settings import ALL, Setting

RECORDED = Path(__file__).parents[1] / "results" / "crossed-families.json"
#: Of the recorded answers may differ: another machine's rounding.
_SHARE = 0.02


def same_image(large: Reader, examples: Iterable[Example]) -> float:
    """Pixels are the processor's, and a crop to the whole image answers as the image does.

    Returns:
        the largest difference of a logit.

    Raises:
        AssertionError: for other pixels.
        RuntimeError: for other answers.
    """
    worst = 0.0
    for example in examples:
        pictures = [paint(scene) for scene in example.scenes]
        asked, plain = Asked(large, pictures, example), Large(large, pictures, example)
        for picture in pictures:
            drawn = patches(np.array(picture)[None])
            torch.testing.assert_close(drawn, large.image(picture)["pixel_values"])
        shown = asked.all()
        expected = asked.logits(shown._replace(batch=plain.batch, visual=plain.visual))
        worst = max(worst, float((asked.logits(shown) - expected).abs().max()))
    if worst > 1e-3:
        raise RuntimeError(f"a crop to the whole image should answer as the image; logits differ by {worst}")
    return worst


def as_recorded(found: Mapping[Setting, Measured], guide: str) -> dict[str, int]:
    """Pruned answers are those of ``benchmarks.crossed families`` on the same questions.

    Returns:
        per recorded setting how many answers differ, and how many questions both have.

    Raises:
        RuntimeError: where more than a few differ.
    """
    recorded = {
        (row["guide"], row["views"], row["retention"]): row["right"]
        for row in json.loads(RECORDED.read_text())["rows"]
        if row["large"].startswith("signs-native")
    }
    differ = {}
    for setting in (ALL, *(Setting(guide, "pruned", 1, share) for share in (0.35, 0.18, 0.09))):
        before = recorded[guide, "joint", setting.kept] if setting.ranking else recorded[None, None, 1]
        now = "".join(str(int(right)) for right in found[setting].right)
        both = min(len(before), len(now))
        count = sum(one != other for one, other in zip(before, now, strict=False))
        if count > _SHARE * both:
            raise RuntimeError(
                f"expected the answers of {RECORDED.name} for {setting}; {count} of {both} differ. Was the "
                "model or the guide replaced? Then run `python -m benchmarks.crossed families` first"
            )
        differ[f"{setting.way} {setting.kept}"] = count
    return {**differ, "questions": both}
