"""The shipped pair, and how its questions are asked."""

from pathlib import Path

MODELS = Path(__file__).resolve().parents[2] / "models"
LARGE, SMALL = MODELS / "signs-large", MODELS / "signs-small"
#: Engine arguments that suit the shipped pair on a small CPU machine.
SHIPPED_ARGS = {
    "trust_remote_code": True,
    "enforce_eager": True,
    "dtype": "float32",
    "max_model_len": 1024,
    "kv_cache_memory_bytes": 128 << 20,
    "limit_mm_per_prompt": {"image": 2},
}

RETENTION = 0.35
EXIT_THRESHOLD = 0.9
#: (name, vllm_xargs of the request)
SETTINGS = (
    ("SGL off", {"sgl_enabled": 0}),
    (f"keep {RETENTION:.0%}", {"sgl_retention": RETENTION}),
    (f"exit at {EXIT_THRESHOLD}", {"sgl_retention": RETENTION, "sgl_exit_threshold": EXIT_THRESHOLD}),
)
MAX_TOKENS = 16
