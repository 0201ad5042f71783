"""What every script asks, of whom, and how it shows what came back. Nothing but the standard library."""

import argparse
import base64
import json
import mimetypes
import re
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGN = Path(__file__).parent / "sign.jpg"
#: About that picture; the answer is 212.
QUESTION = "What is the code on the red sign?"


@dataclass(frozen=True)
class Question:
    """server: its address, without ``/v1``. model: as the server names it; with a profile, MODEL:PROFILE."""

    server: str
    model: str
    image: Path
    text: str

    @property
    def api(self) -> str:
        """The address of OpenAI's API."""
        return f"{self.server}/v1"

    @property
    def image_type(self) -> str:
        return mimetypes.guess_type(self.image)[0] or "image/png"

    @property
    def image_base64(self) -> str:
        return base64.b64encode(self.image.read_bytes()).decode()

    @property
    def image_url(self) -> str:
        """The picture in a data URL."""
        return f"data:{self.image_type};base64,{self.image_base64}"

    @property
    def content(self) -> list[dict[str, Any]]:
        """A user's turn in OpenAI's chat format."""
        image = {"type": "image_url", "image_url": {"url": self.image_url}}
        return [image, {"type": "text", "text": self.text}]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [{"role": "user", "content": self.content}]


def parser(about: str | None) -> argparse.ArgumentParser:
    """Of the options that every script has. about: its docstring."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--server", default="http://127.0.0.1:8000", help="default: %(default)s")
    made.add_argument("--model", help="default: the first one of the server; MODEL:PROFILE asks a profile")
    made.add_argument("--image", type=Path, default=SIGN, metavar="FILE", help="default: a picture of signs")
    made.add_argument("--question", default=QUESTION, help="default: %(default)s")
    return made


def question(options: argparse.Namespace) -> Question:
    """What the options ask."""
    server = options.server.rstrip("/").removesuffix("/v1")
    model = options.model
    if model is None:
        with urllib.request.urlopen(f"{server}/v1/models") as response:
            model = json.load(response)["data"][0]["id"]
    return Question(server, model, options.image, options.question)


def asked(about: str | None, arguments: Sequence[str] | None) -> Question:
    """What a command line asks that has no options but these."""
    return question(parser(about).parse_args(arguments))


def of_headers(headers: Mapping[str, str], prefix: str = "sgl-") -> dict[str, str]:
    """The report in a response's headers. prefix: what a client puts before our names, ours included."""
    found = {name.lower(): value for name, value in headers.items()}
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def show(what: str, answer: object, report: Mapping[str, Any] | None) -> None:
    """One line for the answer, one for the report."""
    print(f"{what}: {answer!r}")
    values = ", ".join(f"{name} {value}" for name, value in (report or {}).items() if value is not None)
    print(f"    {values or 'no report'}")


_DECISIONS = re.compile(r"^sgl:requests_total\{(.*)\} (\S+)$", re.MULTILINE)


def decisions(server: str) -> dict[str, float]:
    """How many requests the server has decided so far, by decision and reason: for clients that show neither
    bodies nor headers."""
    with urllib.request.urlopen(f"{server}/metrics") as response:
        return {labels: float(count) for labels, count in _DECISIONS.findall(response.read().decode())}


def show_decisions(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """What was decided in between."""
    print("\nwhat the server decided:")  # whoever wrote before may have left its line open
    grown: Iterable[tuple[str, float]] = ((k, n - before.get(k, 0)) for k, n in after.items())
    for labels, count in grown:
        if count:
            print(f"    {count:.0f} requests: {labels}")
