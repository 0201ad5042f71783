"""lmms-eval on a task of its own.

It sends no ``vllm_xargs`` and shows neither bodies nor headers: settings are the server's, those of a profile
(``--model MODEL:PROFILE``) or of request headers, and what was decided is counted on ``/metrics``.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .question import decisions, parser, question, show_decisions

_TASK = Path(__file__).parent / "lmms_eval_task"


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--answer", default="212", help="the right one; default: %(default)s")
    chosen = options.parse_args(arguments)
    asked = question(chosen)
    before = decisions(asked.server)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(_TASK, folder, dirs_exist_ok=True)
        line = {"image": str(asked.image.resolve()), "question": asked.text, "answer": chosen.answer}
        Path(folder, "questions.jsonl").write_text(json.dumps(line) + "\n")
        command = [
            sys.executable, "-m", "lmms_eval", "--model=openai", "--tasks=signs", f"--include_path={folder}",
            f"--model_args=model={asked.model},base_url={asked.api},api_key=none", "--batch_size=1",
        ]  # fmt: skip
        # Nothing is to be found on the network, and it is told so.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": folder}
        subprocess.run(command, check=True, cwd=folder, env=environment)
    show_decisions(before, decisions(asked.server))


if __name__ == "__main__":
    main()
