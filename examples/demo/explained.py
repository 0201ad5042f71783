"""``vllm-sgl explain`` on one of the questions."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .picture_questions import PictureQuestion
from .shipped import EXIT_THRESHOLD
from .vllm_serve import environment


def explain(
    large: str, small: str, engine_args: Mapping[str, Any], question: PictureQuestion, out: Path
) -> None:
    """Run ``vllm-sgl explain`` on one question."""
    picture, log = out / "explain.png", out / "explain.log"
    images = map(str, question.images)
    command = ["explain", large, "--small", small, *images, question.text, "-o", str(picture)]
    command += ["--exit-threshold", str(EXIT_THRESHOLD), "--large-args", json.dumps(engine_args)]
    print("\n`vllm-sgl explain` starts engines of its own for one of these questions ...", flush=True)
    with log.open("wb") as errors:
        explaining = subprocess.run(
            [sys.executable, "-m", "vllm_sgl", *command], stderr=errors, env=environment(large)
        )
    if explaining.returncode:
        raise SystemExit(f"it failed; the end of {log}:\n{log.read_text()[-3000:]}")
