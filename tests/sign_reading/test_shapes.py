"""The shapes of real pairs are what their public configurations say."""

import pytest

from benchmarks.accuracy.cost import ModelCost
from benchmarks.true_size import INTERNVL2, config
from tools.sign_reading.shapes import SHAPES

TILES, TOKENS = 13, 256
#: Decoders that are no InternVL2: hidden size, MLP units, layers, heads, key-value heads, size of a head.
DECODERS = {
    "Qwen2.5-1.5B": (1536, 8960, 28, 12, 2, 128),
    "Qwen3-1.7B": (2048, 6144, 28, 16, 8, 128),
    "Qwen3-32B": (5120, 25600, 64, 64, 8, 128),
    "Qwen2.5-72B": (8192, 29568, 80, 64, 8, 128),
}
FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim",
)  # fmt: skip


def tflop(vision: str, decoder: str | None = None) -> tuple[float, float]:
    """Of a tile through the encoder of an InternVL2, and of its tokens through a decoder (None: its own)."""
    values = config(INTERNVL2[vision])
    if decoder is not None:
        values["llm_config"] |= dict(zip(FIELDS, DECODERS[decoder], strict=True))
    cost = ModelCost.of(values)
    return cost.tile / 1e12, cost.prefill(TILES * TOKENS, logits=0) / TILES / 1e12


@pytest.mark.parametrize(
    ("name", "large", "guide"),
    [
        ("26B+2B", ("26B",), ("2B",)),
        ("38B+2B", ("26B", "Qwen3-32B"), ("2B", "Qwen3-1.7B")),
        ("78B+2B", ("26B", "Qwen2.5-72B"), ("2B", "Qwen2.5-1.5B")),
    ],
)
def test_shapes(name, large, guide):
    shape = SHAPES[name]
    assert (shape.vision, shape.decoder) == pytest.approx(tflop(*large), rel=0.01)
    assert (shape.guide_vision, shape.guide_decoder) == pytest.approx(tflop(*guide), rel=0.01)


@pytest.mark.parametrize(
    ("name", "percents"), [("26B+2B", (54, 46, 7)), ("38B+2B", (42, 58, 5)), ("78B+2B", (25, 75, 3))]
)
def test_percents(name, percents):
    shape = SHAPES[name]
    whole = shape.vision + shape.decoder
    parts = (shape.vision, shape.decoder, shape.guide_vision + shape.guide_decoder)
    assert tuple(round(100 * part / whole) for part in parts) == percents
