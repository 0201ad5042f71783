"""``vllm run-batch``: a file of requests, without a server; each line of the output has its report.

Takes vLLM's own flags behind its own: ``python -m examples.clients.with_run_batch LARGE --small SMALL
--max-model-len 4096``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .question import QUESTION, SIGN, Question, show


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    options.add_argument("large", metavar="LARGE")
    options.add_argument("--small", required=True, metavar="SMALL")
    options.add_argument("--input", type=Path, metavar="FILE", help="a batch file; default: one question")
    options.add_argument("--output", type=Path, metavar="FILE", help="where to keep the answers")
    chosen, of_vllm = options.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        batch = chosen.input or Path(folder, "asked.jsonl")
        answered = chosen.output or Path(folder, "answered.jsonl")
        if chosen.input is None:
            batch.write_text(json.dumps(line(chosen.large)))
        command = [
            sys.executable, "-m", "vllm.entrypoints.cli.main", "run-batch", "-i", str(batch),
            "-o", str(answered), "--model", chosen.large, "--sgl-small", chosen.small, *of_vllm,
        ]  # fmt: skip
        subprocess.run(command, check=True)
        for output in map(json.loads, answered.read_text().splitlines()):
            body = output["response"]["body"] or {}
            answer = body["choices"][0]["message"]["content"] if body else output["error"]
            show(output["custom_id"], answer, body.get("sgl"))


def line(model: str) -> dict:
    """A line of a batch file. The model is named as on the command line."""
    question = Question("", model, SIGN, QUESTION)
    body = {
        "model": model,
        "messages": question.messages,
        "max_tokens": 16,
        "temperature": 0,
        "vllm_xargs": {"sgl_retention": 0.35, "sgl_exit_threshold": 0.9},
    }
    return {"custom_id": "sign", "method": "POST", "url": "/v1/chat/completions", "body": body}


if __name__ == "__main__":
    main()
