"""guidellm on questions about pictures: here one, again and again; for figures put in yours.

It shows neither bodies nor headers: what was decided is counted on the server's ``/metrics``. The data names
no number of answer tokens on purpose: with one guidellm sets ``ignore_eos``, and no answer of the small
model's would be long enough to be given out.
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
    options.add_argument("--requests", type=int, default=8, metavar="N")
    chosen = options.parse_args(arguments)
    asked = question(chosen)
    before = decisions(asked.server)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "questions.jsonl"
        line = {"image": asked.image_url, "question": asked.text}
        data.write_text((json.dumps(line) + "\n") * chosen.requests)
        sgl = {"vllm_xargs": {"sgl_retention": 0.35, "sgl_exit_threshold": 0.9}}
        settings = {
            "backend": {
                "kind": "openai_http",
                "target": asked.server,
                "model": asked.model,
                "max_tokens": 16,
                "extras": {"body": {"temperature": 0, **sgl}},
            },
            "data": {"kind": "json_file", "path": str(data)},
            "tokenizer": {"kind": "huggingface_auto", "load_kwargs": {"trust_remote_code": True}},
            "profile": {"kind": "concurrent", "streams": 4},
            "constraint": {"kind": "max_requests", "count": chosen.requests},
            "output": {"kind": "console"},
        }
        command = [sys.executable, "-m", "guidellm", "run", "--disable-console-interactive"]
        command += [f"--{name}={json.dumps(value)}" for name, value in settings.items()]
        subprocess.run(command, check=True, cwd=folder)
    show_decisions(before, decisions(asked.server))


if __name__ == "__main__":
    main()
