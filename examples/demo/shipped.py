"""The shipped pair, what it is widened to, and how its questions are asked."""

from pathlib import Path

MODELS = Path(__file__).resolve().parents[2] / "models"
LARGE, SMALL = MODELS / "signs-large", MODELS / "signs-small"
#: The pair whose proportions the widened one has (`tools/sign_reading/shapes.py`), and GFLOP of its large
#: model per tile: as much as two cores do often enough within a minute or two.
SHAPE, GFLOP = "26B+2B", 8.0
SHAPE_NAME = "InternVL2-26B and InternVL2-2B"
#: Engine arguments that suit the widened pair on a small CPU machine.
SHIPPED_ARGS = {
    "trust_remote_code": True,
    "enforce_eager": True,
    "dtype": "float32",
    "max_model_len": 512,
    "max_num_seqs": 8,
    "kv_cache_memory_bytes": 128 << 20,
    "limit_mm_per_prompt": {"image": 2},
}

RETENTION = 0.35
EXIT_THRESHOLD = 0.9
PLAIN = "plain"
#: (name, vllm_xargs of the request); the first is what the others are compared with.
SETTINGS = (
    (PLAIN, {"sgl_enabled": 0}),
    (f"keep {RETENTION:.0%}", {"sgl_retention": RETENTION, "sgl_policy": "top"}),
    (f"keep {RETENTION:.0%}, tiles", {"sgl_retention": RETENTION, "sgl_policy": "tiles"}),
    (
        f"... and exit at {EXIT_THRESHOLD}",
        {"sgl_retention": RETENTION, "sgl_policy": "tiles", "sgl_exit_threshold": EXIT_THRESHOLD},
    ),
)
MAX_TOKENS = 16
