"""``vllm bench serve`` on questions about pictures: here one, again and again; for figures put in yours.

It shows neither bodies nor headers: what was decided is counted on the server's ``/metrics``. Without
``--ignore-eos`` on purpose: answers end where they end, or none would come from the small model.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .question import decisions, parser, question, show_decisions


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--tokenizer", help="a name or directory; default: the model")
    options.add_argument("--requests", type=int, default=8, metavar="N")
    chosen = options.parse_args(arguments)
    asked = question(chosen)
    before = decisions(asked.server)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "questions.jsonl"
        data.write_text((json.dumps({"content": asked.content}) + "\n") * chosen.requests)
        command = [
            sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve",
            "--backend=openai-chat", "--endpoint=/v1/chat/completions", f"--base-url={asked.server}",
            f"--model={asked.model}", f"--tokenizer={chosen.tokenizer or asked.model}", "--trust-remote-code",
            "--dataset-name=custom_image", f"--dataset-path={data}", "--enable-multimodal-chat",
            f"--num-prompts={chosen.requests}", "--max-concurrency=4", "--custom-output-len=16",
            "--temperature=0", "--disable-tqdm",
            '--extra-body={"vllm_xargs": {"sgl_retention": 0.35, "sgl_exit_threshold": 0.9}}',
        ]  # fmt: skip
        subprocess.run(command, check=True)
    show_decisions(before, decisions(asked.server))


if __name__ == "__main__":
    main()
