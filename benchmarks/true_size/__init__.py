"""Published models at their true sizes, without weights: checkpoints for `load_format="dummy"`.

    python -m benchmarks.true_size InternVL2-26B OUT_DIR

Dummy weights cost the memory and the time of real ones. Shapes are those of the published `config.json`; the
README of this folder says which were compared with what, and `tests/unit/test_true_size.py` holds parameter
counts against the published ones. The tokenizer is the small one of `tools.tiny_internvl` with the family's
special tokens: all its ids lie inside the real vocabulary.
"""

from .checkpoint import TrueSize, build, config
from .internvl import InternVLSize
from .internvl_sizes import INTERNVL2, INTERNVL3, INTERNVL3_5
from .transformers_sizes import MODELS as _TRANSFORMERS
from .transformers_sizes import TransformersSize

#: All of them, by name.
MODELS: dict[str, TrueSize] = {
    size.name: size
    for size in (*INTERNVL2.values(), *INTERNVL3.values(), *INTERNVL3_5.values(), *_TRANSFORMERS)
}

__all__ = [
    "INTERNVL2", "INTERNVL3", "INTERNVL3_5", "MODELS", "InternVLSize", "TransformersSize", "TrueSize",
    "build", "config",
]  # fmt: skip
