"""Asking a server about random images, and what outside reference says about the same question."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

import tools.reference as outside
from tests.support.images import data_url, random_image
from tests.support.rendering import chat_prompt, render
from tests.support.server import Server
from tools.reference import reference

#: width and height; six tiles and a thumbnail.
SIZE = (300, 200)
#: Visual tokens of one such image.
VISUAL = 112
#: The server's default for the small model's answer.
GUIDE_TOKENS = 32

#: Where no exit is possible.
ROW_TOKENS = 8

#: The small model ends its answer by itself: (question, seed of its image).
SHORT = ("Read the number.", 3)
#: The small model's answer is nothing but the end token.
EMPTY = ("Describe the image in detail.", 2)
#: The small model does not come to an end within 32 tokens.
LONG = ("What time is it?", 3)

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "sign", "schema": {"type": "object", "properties": {"a": {"type": "boolean"}}}},
}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def content(
    question: str, seeds: Iterable[int], size: tuple[int, int] = SIZE, videos: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """A user turn: videos by their addresses, random images, then the question."""
    images = [data_url(random_image(seed, *size)) for seed in seeds]
    parts = [
        *({"type": "video_url", "video_url": {"url": url}} for url in videos),
        *({"type": "image_url", "image_url": {"url": url}} for url in images),
    ]
    return [*parts, {"type": "text", "text": question}]


def request(
    question: str, *seeds: int, sgl: dict[str, Any] | None = None, extra: dict[str, Any] | None = None,
    videos: Sequence[str] = (), **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Keyword arguments for ``chat.completions.create``; greedy unless told otherwise.

    seeds: of images. videos: their addresses, which come first.
    sgl: ``vllm_xargs``. extra: other fields of the body that the OpenAI client does not know.
    """
    body = dict(extra or {})
    if sgl is not None:
        body["vllm_xargs"] = {f"sgl_{name}": value for name, value in sgl.items()}
    messages = [{"role": "user", "content": content(question, seeds, videos=videos)}]
    return {"messages": messages, "temperature": 0, "max_tokens": 12, "extra_body": body, **options}


def ask(server: Server, question: str, *seeds: int, **options: Any) -> ChatCompletion:
    """One chat completion."""
    return server.client.chat.completions.create(model=server.model, **request(question, *seeds, **options))


def stream(server: Server, question: str, *seeds: int, **options: Any) -> list[ChatCompletionChunk]:
    """The chunks of a streamed chat completion."""
    asked = request(question, *seeds, stream=True, **options)
    return list(server.client.chat.completions.create(model=server.model, **asked))


def text(completion: ChatCompletion) -> str:
    return completion.choices[0].message.content


def same_report(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two reports agree in everything but the time that the guide took."""
    return one.keys() == other.keys() and all(
        pytest.approx(value, rel=1e-3) == other[name] if isinstance(value, float) else value == other[name]
        for name, value in one.items()
        if name != "guide_seconds"
    )


class Expected(NamedTuple):
    """What must come out for a question, by transformers alone."""

    prompt_tokens: int
    answer: str
    tokens: int
    finished: bool
    confidence: float
    consistency: float


@cache
def small_alone(
    path: Path, question: str, seed: int, max_tokens: int = GUIDE_TOKENS,
    query_rows: outside.QueryRows = "prompt+generated",
) -> Expected:  # fmt: skip
    """The small model's own greedy answer to a question about one image, and its two scores."""
    model, ids, pixels = _rendered(path, question, seed)
    answer = model.generate(ids, pixels, max_tokens)
    return Expected(
        prompt_tokens=len(ids),
        answer=model.tokenizer.decode(answer.tokens, skip_special_tokens=True),
        tokens=len(answer.tokens),
        finished=answer.tokens[-1] == model.eos_token_id,
        confidence=outside.confidence(answer.logprobs),
        consistency=model.consistency(ids, pixels, answer.tokens, query_rows=query_rows),
    )


@cache
def large_pruned(pair: tuple[Path, Path], question: str, seed: int, retention: float, max_tokens: int) -> str:
    """The large model's greedy answer on what the small model's attention keeps; no exit is possible."""
    small, ids, pixels = _rendered(pair[0], question, seed)
    guided = small.generate(ids, pixels, min(ROW_TOKENS, max_tokens))
    kept = outside.select(small.importance(ids, pixels, guided.tokens), retention)
    large = reference(pair[1])
    answer = large.generate(ids, pixels, max_tokens, keep=kept)
    return large.tokenizer.decode(answer.tokens, skip_special_tokens=True)


def _rendered(path: Path, question: str, seed: int) -> tuple[outside.Reference, list[int], Sequence[Any]]:
    model = reference(path)
    return model, *render(path, chat_prompt(question, 1), [random_image(seed, *SIZE)])
