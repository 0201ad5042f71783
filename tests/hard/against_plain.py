"""The same odd requests to plain vLLM and to guided pairs: ``make odd``.

    python -m tests.hard.against_plain [--pairs shared crossed translated] [--out FILE]

Each request is asked three times of a guided server, which fails (503) if a guide does: the guide looks and
nothing is pruned; as the server prunes; and exiting wherever that is possible. Status and prompt tokens must
be plain vLLM's each time, and where nothing is pruned the answer, too. Prints every difference and the
requests by decision and reason; exits with status 1 if there is a difference, or an error of ours in a guided
server's log.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.hard.odd_requests import LOCAL, Odd, every
from tests.support.server import REQUEST_TIMEOUT, Server
from tests.translated.pairs import other_tokenizer

MODELS = Path(__file__).parents[2] / "models"
#: Names of pairs, each a small and a large model.
PAIRS = {"shared": ("signs-small", "signs-large"), "crossed": ("signs-native", "signs-large")}
#: Of every server: parsers that some of the requests need.
FLAGS = [
    "--enable-auto-tool-choice", "--tool-call-parser=hermes", "--enable-prompt-tokens-details",
    "--interleave-mm-strings", f"--allowed-local-media-path={LOCAL.parent}",
    '--media-io-kwargs={"image": {"rgba_background_color": [0, 0, 0]}}',
]  # fmt: skip
GUIDED = ["--sgl-break-even=off", "--sgl-on-error=fail"]
#: Headers of the three ways. A score of 1 is what no answer has.
WAYS = {
    "nothing pruned": {"sgl-retention": "1", "sgl-exit-threshold": "1"},
    "pruned": {"sgl-retention": "0.35"},
    "exit": {"sgl-exit-threshold": "0"},
}


def ask(server: Server, odd: Odd, headers: dict[str, str]) -> dict[str, Any]:
    """What a client compares: status, text, finish reason, usage."""
    body = {"model": server.model, **odd.body}
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=REQUEST_TIMEOUT) as http:
        if body.get("stream"):
            with http.stream("POST", odd.path, json=body, headers=headers) as response:
                return _streamed(response, odd.leave)
        response = http.post(odd.path, json=body, headers=headers)
    found: dict[str, Any] = {"status": response.status_code}
    if response.status_code == 200:
        found |= _said(response.json())
    return found


def _streamed(response: httpx.Response, leave: bool) -> dict[str, Any]:
    text, usage = "", None
    for line in response.iter_lines():
        if leave:
            break
        data = line.removeprefix("data: ")
        if data == line or data == "[DONE]":
            continue
        event = json.loads(data)
        delta = event.get("delta")
        text += delta if isinstance(delta, str) else (delta or {}).get("text") or ""
        text += "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
        usage = event.get("usage") or (event.get("response") or {}).get("usage") or usage
    return {"status": response.status_code, "text": text, "prompt": _prompt_tokens(usage)}


def _said(answer: dict[str, Any]) -> dict[str, Any]:
    parts = answer.get("choices") or answer.get("output") or answer.get("content") or answer.get("tokens")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict):
            for name in ("id", "sgl", "logprobs", "token_ids"):
                part.pop(name, None)
            for call in (part.get("message") or {}).get("tool_calls") or ():
                call.pop("id", None)
    usage = answer.get("usage")
    details = (usage or {}).get("prompt_tokens_details") or {}
    given = sorted(name for name, value in details.items() if value is not None)
    return {"text": parts, "prompt": _prompt_tokens(usage), "details": given}


def _prompt_tokens(usage: dict[str, Any] | None) -> int | None:
    """Of the whole prompt: the Messages API counts what was cached apart."""
    if usage is None:
        return None
    names = ("prompt_tokens", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(usage.get(name) or 0 for name in names)


def differences(plain: dict[str, Any], guided: dict[str, Any], way: str, odd: Odd) -> list[str]:
    """In words."""
    names = ["status"]
    if not odd.leave:
        names += ["prompt", "details"] + (["text"] if way == "nothing pruned" and _is_greedy(odd) else [])
    return [
        f"{name}: plain {plain.get(name)!r}, guided {guided.get(name)!r}"
        for name in names
        if plain.get(name) != guided.get(name)
    ]


def _is_greedy(odd: Odd) -> bool:
    return odd.body.get("temperature") == 0 and odd.body.get("n", 1) == 1


@contextmanager
def served(model: Path, folder: Path, name: str, flags: list[str]) -> Iterator[Server]:
    # As users start it: plain vLLM's worker processes do not start in a forked server.
    with Server(model, folder / f"{name}.log", [*FLAGS, *flags], as_users=True) as server:
        yield server


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", nargs="+", choices=[*PAIRS, "translated"], default=[*PAIRS, "translated"])
    parser.add_argument("--out", type=Path, help="JSON of plain vLLM's answers")
    parser.add_argument("--logs", type=Path, help="folder for the servers' logs")
    options = parser.parse_args()
    requests, found, bad = list(every()), {}, 0
    with tempfile.TemporaryDirectory() as name:
        folder = options.logs or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        pairs = {
            pair: tuple(MODELS / model for model in PAIRS[pair]) for pair in options.pairs if pair in PAIRS
        }
        if "translated" in options.pairs:
            pairs["translated"] = other_tokenizer(folder / "translated")
        for large in dict.fromkeys(large for _, large in pairs.values()):
            with served(large, folder, f"plain {large.name}", []) as server:
                found[large] = {odd.name: ask(server, odd, {}) for odd in requests}
            print(f"plain {large.name}: {_statuses(found[large])}", flush=True)
        for pair, (small, large) in pairs.items():
            bad += compare(pair, small, large, folder, requests, found[large])
    print(f"{bad} differences in {len(requests)} requests, three ways each, of {len(pairs)} pairs")
    if options.out:
        options.out.write_text(
            json.dumps({large.name: answers for large, answers in found.items()}, indent=1)
        )
    return int(bad > 0)


def compare(
    pair: str, small: Path, large: Path, folder: Path, requests: list[Odd], plain: dict[str, Any]
) -> int:
    """How many differences a guided server shows; each is printed."""
    bad = 0
    with served(large, folder, pair, [f"--sgl-small={small}", *GUIDED]) as server:
        for odd in requests:
            for way, headers in WAYS.items():
                for difference in differences(plain[odd.name], ask(server, odd, headers), way, odd):
                    bad += 1
                    print(f"{pair}, {way}, {odd.name}: {difference}", flush=True)
        metrics = server.get("/metrics")[2]
        errors = [line for line in server.log_text().splitlines() if " ERROR " in line and "SGL" in line]
    counted = Counter()
    for line in metrics.splitlines():
        if line.startswith("sgl:requests_total"):
            counted[line.partition("{")[2].partition("}")[0]] += int(float(line.rpartition(" ")[2]))
    for labels, count in sorted(counted.items()):
        print(f"{pair}: {count:4} {labels}", flush=True)
    for line in errors:
        print(f"{pair}, the log: {line}", flush=True)
    return bad + len(errors)


def _statuses(answers: dict[str, Any]) -> dict[int, int]:
    return dict(sorted(Counter(answer["status"] for answer in answers.values()).items()))


if __name__ == "__main__":
    sys.exit(main())
