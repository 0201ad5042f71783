"""What real pairs cost, part by part: what `widen.py` makes the sign readers cost in proportion."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """TFLOP per tile of 448 pixels and 256 visual tokens, in an image of 13 tiles: two per multiplication of
    every matrix product, attention included, embeddings, logits and the question left out.

    vision, decoder: of the large model. guide_vision, guide_decoder: of the small one.
    """

    vision: float
    decoder: float
    guide_vision: float
    guide_decoder: float


#: From the models' public shapes, as `tests/sign_reading/test_shapes.py` counts them. In percent of the large
#: model's work, vision : decoder : guide are 54 : 46 : 7, 42 : 58 : 5 and 25 : 75 : 3.
SHAPES = {
    # InternVL2: InternViT-6B with InternLM2-20B, guided by InternViT-300M with InternLM2-1.8B.
    "26B+2B": Shape(vision=12.00, decoder=10.09, guide_vision=0.73, guide_decoder=0.86),
    # InternVL3.5: InternViT-6B with Qwen3-32B, guided by InternViT-300M with Qwen3-1.7B.
    "38B+2B": Shape(vision=11.99, decoder=16.87, guide_vision=0.73, guide_decoder=0.82),
    # InternVL3: InternViT-6B with Qwen2.5-72B, guided by InternViT-300M with Qwen2.5-1.5B.
    "78B+2B": Shape(vision=12.03, decoder=37.07, guide_vision=0.73, guide_decoder=0.74),
}
