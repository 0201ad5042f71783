"""Serve a pair of models with SGL, ask it about pictures with the OpenAI client, print what happened.

    python -m examples.demo [--large MODEL --small MODEL] [--image FILE ... --question TEXT]

Every question is asked with SGL off, with pruning, and with pruning and early exit. Then `vllm-sgl explain`
draws what the small model looked at. Pictures and the server's log go to --out.
"""

import argparse
import base64
import json
import mimetypes
import os
import socket
import statistics
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from benchmarks.accuracy.command_line import json_object
from benchmarks.accuracy.metrics import exact_match
from tools.sign_reading import example
from tools.sign_reading.scene import paint

RETENTION = 0.35
EXIT_THRESHOLD = 0.9
#: Numbers of examples of the test split, all kinds of questions among them; 14 has two images.
EXAMPLES = (2, 3, 6, 11, 14, 26)
#: The one of them that is explained.
EXPLAINED = 6
#: The first request of all, not shown: whatever is set up once is not timed.
WARM_UP = 0
REPEATS = 5

#: (name, vllm_xargs of the request)
SETTINGS = (
    ("SGL off", {"sgl_enabled": 0}),
    (f"keep {RETENTION:.0%}", {"sgl_retention": RETENTION}),
    (f"exit at {EXIT_THRESHOLD}", {"sgl_retention": RETENTION, "sgl_exit_threshold": EXIT_THRESHOLD}),
)
MODELS = Path(__file__).resolve().parents[1] / "models"
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
MAX_TOKENS = 16
START_SECONDS = 600

_COLUMNS = "{:41} {:11} {:16} {:8} {:8} {:>10} {:>5} {:>6}"
_HEADINGS = ("question", "setting", "answer", "right?", "decision", "kept / all", "score", "ms")


@dataclass(frozen=True)
class Question:
    """answer: the right one; None where it is not known."""

    images: tuple[Path, ...]
    text: str
    answer: str | None = None


def sign_question(number: int, directory: Path) -> Question:
    """An example of the test split, its images painted into the directory."""
    made = example("test", number)
    images = [directory / f"signs-{number}-{index}.png" for index in range(len(made.scenes))]
    for scene, path in zip(made.scenes, images, strict=True):
        paint(scene).save(path)
    return Question(tuple(images), made.question.text, made.question.answer)


@contextmanager
def serving(large: str, small: str, engine_args: Mapping[str, Any], log: Path) -> Iterator[str]:
    """``vllm serve`` while the block runs; gives the API's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [
        "serve",
        large,
        "--sgl-small",
        small,
        "--sgl-break-even=off",  # pruning pays for a large model; here both are tiny
        *flags(engine_args),
        "--host",
        "127.0.0.1",
        "--port",
        port,
    ]
    print("$ vllm", *command, flush=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.cli.main", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(large),
        )
    try:
        wait_for(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def wait_for(server: subprocess.Popen, health: str, log: Path) -> None:
    """Until the server answers.

    Raises:
        SystemExit: it ended, or took too long.
    """
    began = time.monotonic()
    while (seconds := time.monotonic() - began) < START_SECONDS:
        if server.poll() is not None:
            raise SystemExit(f"\nthe server ended at its start; the end of {log}:\n{log.read_text()[-3000:]}")
        try:
            urllib.request.urlopen(health, timeout=2).close()
        except (urllib.error.URLError, TimeoutError):
            print(f"\rstarting both engines, up to a minute or two ... {seconds:.0f} s", end="", flush=True)
            time.sleep(1)
        else:
            print(f"\nup; its log is {log}\n", flush=True)
            return
    raise SystemExit(f"\nno answer within {START_SECONDS} s; see {log}")


def flags(engine_args: Mapping[str, Any]) -> Iterator[str]:
    """Engine arguments as a command line."""
    for name, value in engine_args.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield f"--{flag}"
            yield value if isinstance(value, str) else json.dumps(value)


def environment(model: str) -> dict[str, str] | None:
    """For child processes: a model on disk needs no network."""
    return {**os.environ, "HF_HUB_OFFLINE": "1"} if Path(model).is_dir() else None


class Asker:
    """A client of the only model that is served at an address."""

    def __init__(self, address: str) -> None:
        self._client = openai.OpenAI(base_url=address, api_key="none")
        self._model = self._client.models.list().data[0].id

    def ask(self, question: Question, options: Mapping[str, Any]) -> tuple[Any, float]:
        """The reply, and how many seconds it took."""
        content: list[dict[str, Any]] = [_image_part(path) for path in question.images]
        content.append({"type": "text", "text": question.text})
        began = time.perf_counter()
        reply = self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": content}],
            max_tokens=MAX_TOKENS,
            temperature=0,
            extra_body={"vllm_xargs": options},
        )
        return reply, time.perf_counter() - began


def _image_part(path: Path) -> dict[str, Any]:
    """The image under a name that no request had before, so that none of vLLM's caches has it."""
    kind = mimetypes.guess_type(path)[0] or "image/png"
    url = f"data:{kind};base64," + base64.b64encode(path.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": url}, "uuid": str(uuid.uuid4())}


def ask_everything(asker: Asker, questions: list[Question], warm_up: Question) -> None:
    """Print a table of every question under every setting, and a summary."""
    for _, options in SETTINGS:
        asker.ask(warm_up, options)
    print(_COLUMNS.format(*_HEADINGS))
    right: dict[str, list[bool]] = {name: [] for name, _ in SETTINGS}
    times: dict[str, list[float]] = {name: [] for name, _ in SETTINGS}
    for question in questions:
        found = [[asker.ask(question, options) for _, options in SETTINGS] for _ in range(REPEATS)]
        for row, (name, _) in enumerate(SETTINGS):
            reply = found[0][row][0]
            seconds = statistics.median(repeat[row][1] for repeat in found)
            times[name].append(seconds)
            if question.answer is not None:
                right[name].append(exact_match(reply.choices[0].message.content, [question.answer]) == 1)
            _print_row(question, row, reply, seconds)
    print()
    for name, _ in SETTINGS:
        share = f"{sum(right[name])} of {len(right[name])} right, " if right[name] else ""
        print(f"{name:11} {share}median {1000 * statistics.median(times[name]):.0f} ms")
    print(
        f"ms: median of {REPEATS} requests, one at a time, settings in turn. Every request names its images "
        "anew, so that no cache\nanswers for the work of an earlier one."
    )


def _print_row(question: Question, row: int, reply: Any, seconds: float) -> None:
    answer, sgl = reply.choices[0].message.content, reply.sgl
    verdict = ""
    if question.answer is not None:
        verdict = "yes" if exact_match(answer, [question.answer]) else f"no: {question.answer}"
    cells = (
        textwrap.shorten(question.text, 41, placeholder=" ...") if row == 0 else "",
        SETTINGS[row][0],
        textwrap.shorten(answer, 16, placeholder=" ...") or "(empty)",
        verdict,
        sgl["decision"],
        f"{sgl['kept_tokens']} / {sgl['visual_tokens']}",
        "-" if sgl["score"] is None else f"{sgl['score']:.2f}",
        f"{1000 * seconds:.0f}",
    )
    print(_COLUMNS.format(*cells), flush=True)


def explain(large: str, small: str, engine_args: Mapping[str, Any], question: Question, out: Path) -> None:
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


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--large", metavar="MODEL", help="a large model of your own (default: the shipped pair)")
    add("--small", metavar="MODEL", help="the small model of the same family")
    add("--image", type=Path, action="append", metavar="FILE", help="a picture of your own; may be repeated")
    add("--question", default="What is in this picture?", help="about each of your pictures")
    add("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default: demo-out")
    add(
        "--engine-args",
        type=json_object,
        metavar="JSON",
        help='vLLM\'s, such as \'{"trust_remote_code": true, "max_model_len": 8192}\' '
        "(default: none, or what suits the shipped pair)",
    )
    options = parser.parse_args()
    if (options.large is None) != (options.small is None):
        parser.error("--large and --small go together")
    for path in options.image or []:
        if not path.is_file():
            parser.error(f"--image {path}: no such file")
    for model in (LARGE, SMALL) if options.large is None else ():
        if not (model / "model.safetensors").is_file():
            parser.error(
                f"there is no model in {model}, where the shipped pair should be. Restore it (git checkout "
                "-- models), train it (python -m tools.sign_reading.training --help), or name models of your "
                "own with --large and --small"
            )
    return options


def main() -> None:
    options = parse()
    shipped = options.large is None
    large, small = (str(LARGE), str(SMALL)) if shipped else (options.large, options.small)
    engine_args = options.engine_args
    if engine_args is None:
        engine_args = SHIPPED_ARGS if shipped else {}
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.image:
        questions = [Question((path,), options.question) for path in options.image]
        explained = questions[0]
    else:
        by_number = {number: sign_question(number, out) for number in EXAMPLES}
        questions, explained = list(by_number.values()), by_number[EXPLAINED]
    with serving(large, small, engine_args, out / "server.log") as address:
        ask_everything(Asker(address), questions, sign_question(WARM_UP, out))
    if shipped:
        print(
            "\nThese models gain no time: the large one is but three times the small one, and asking both "
            "takes longer than\nasking one. What they show is how few of its visual tokens a question needs."
        )
    explain(large, small, engine_args, explained, out)


if __name__ == "__main__":
    main()
