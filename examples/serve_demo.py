"""Serve a pair of models with SGL, ask it about pictures with the OpenAI client, print what happened.

    python -m examples.serve_demo [--large MODEL --small MODEL] [--image FILE ...] [-- VLLM ARGS]

Without models it makes a tiny random-weight pair: the answers are gibberish, everything else is real.
"""

import argparse
import base64
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path

import openai
from PIL import Image, ImageDraw

QUESTIONS = ("What is on the red sign?", "How many signs are there?")
#: (name, vllm_xargs of the request)
SETTINGS = (
    ("SGL off", {"sgl_enabled": 0}),
    ("keep 35 %", {}),
    ("keep 9 %", {"sgl_retention": 0.09}),
    ("may exit", {"sgl_exit_threshold": 0.2}),
)
START_SECONDS = 600


def picture() -> Image.Image:
    """A wall with three signs."""
    image = Image.new("RGB", (448, 320), "#c8c0b0")
    draw = ImageDraw.Draw(image)
    for x, y, colour, code in ((40, 60, "red", "K7"), (190, 150, "blue", "41"), (330, 40, "green", "B")):
        draw.rectangle((x, y, x + 90, y + 60), fill=colour, outline="black", width=3)
        draw.text((x + 18, y + 8), code, fill="white", font_size=36)
    return image


def data_url(image: Image.Image) -> str:
    buffer = BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def tiny_pair(directory: Path) -> tuple[list[str], list[str]]:
    """Make a pair; returns (model arguments, vLLM arguments that fit it)."""
    from tools.tiny_internvl import build_pair

    small, large = build_pair(directory)
    fit = ["--trust-remote-code", "--enforce-eager", "--dtype", "float32", "--max-model-len", "1024"]
    return [str(large), str(small)], [*fit, "--kv-cache-memory-bytes", str(256 << 20)]


def start(models: list[str], extra: list[str], log: Path) -> tuple[subprocess.Popen, str]:
    """Start ``vllm serve`` and wait until it answers; returns the process and the API's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    large, small = models
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", large, "--sgl-small", small]
    command += ["--host", "127.0.0.1", "--port", port, *extra]
    print("$ vllm", *command[3:], flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"} if Path(large).is_dir() else None
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    began = time.monotonic()
    while time.monotonic() - began < START_SECONDS:
        if server.poll() is not None:
            raise SystemExit(f"the server ended at its start:\n{log.read_text()[-3000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
        except (urllib.error.URLError, TimeoutError):
            print(f"\rstarting ... {time.monotonic() - began:.0f} s", end="", flush=True)
            time.sleep(1)
        else:
            print()
            return server, f"http://127.0.0.1:{port}/v1"
    server.terminate()
    raise SystemExit(f"no answer within {START_SECONDS} s; see {log}")


def ask_everything(address: str, images: list[Image.Image]) -> None:
    client = openai.OpenAI(base_url=address, api_key="none")
    model = client.models.list().data[0].id
    print(f"{'question':28} {'setting':10} {'decision':8} {'kept / all':>10} {'score':>6} {'s':>6}  answer")
    for image in images:
        for question in QUESTIONS:
            content = [
                {"type": "image_url", "image_url": {"url": data_url(image)}},
                {"type": "text", "text": question},
            ]
            for name, options in SETTINGS:
                began = time.monotonic()
                reply = client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": content}],
                    max_tokens=16,
                    temperature=0,
                    extra_body={"vllm_xargs": options} if options else None,
                )
                seconds, sgl = time.monotonic() - began, reply.sgl
                score = "" if sgl["score"] is None else f"{sgl['score']:.2f}"
                kept = f"{sgl['kept_tokens']} / {sgl['visual_tokens']}"
                row = f"{question:28} {name:10} {sgl['decision']:8} {kept:>10} {score:>6} {seconds:6.2f}"
                print(f"{row}  {reply.choices[0].message.content!r}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", help="the large model (default: a tiny random one, made on the spot)")
    parser.add_argument("--small", help="the small model of the same family")
    parser.add_argument("--image", type=Path, action="append", help="ask about this image; may be repeated")
    parser.add_argument("vllm", nargs="*", help="more arguments for vllm serve, after --")
    args = parser.parse_args()
    if (args.large is None) != (args.small is None):
        parser.error("--large and --small go together")
    images = [Image.open(path) for path in args.image] if args.image else [picture()]
    with tempfile.TemporaryDirectory() as directory:
        fit: list[str] = []
        if args.large is None:
            models, fit = tiny_pair(Path(directory))
        else:
            models = [args.large, args.small]
        server, address = start(models, fit + args.vllm, Path(directory) / "server.log")
        try:
            ask_everything(address, images)
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    main()
