"""A streaming client: sends a case, and says when each answer's first token, next tokens and end came."""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.support.workspace import BenchmarkError
from vllm_sgl.evaluate.metrics import exact_match

from .bodies import body, urls
from .traffic.base import Case, Request

_SECONDS = 600
_PATH = "/v1/chat/completions"


@dataclass
class Answer:
    """Times in seconds from the request's sending. arrivals: of each chunk with text. right: 1 or 0; None
    where it is unknown. cached_tokens: of prompt_tokens, those in the prefix cache. sgl: the report."""

    part: str
    first_token: float = 0.0
    seconds: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    text: str = ""
    right: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    sgl: dict[str, Any] | None = None

    @property
    def gaps(self) -> list[float]:
        """Seconds between tokens that follow each other."""
        return [after - before for before, after in itertools.pairwise(self.arrivals)]


@dataclass
class Sent:
    """A case as one server answered it. seconds: from the first request to the last answer."""

    answers: list[Answer]
    seconds: float


async def send(address: str, case: Case, keys: Mapping[str, Any], marks: Iterator[int]) -> Sent:
    """Send a case to a server; media are marked, so that it has not seen them.

    Args:
        address: http://HOST:PORT.
        keys: the requests' ``vllm_xargs``.

    Raises:
        BenchmarkError: with the server's own words, where it refuses a request or breaks off.
    """
    media = urls(case, marks)
    made = {id(request): body(request, media, keys) for request in case.requests()}
    timeout, connector = aiohttp.ClientTimeout(total=_SECONDS), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(address, timeout=timeout, connector=connector) as session:
        for request in case.before:
            await _ask(session, request, made[id(request)])
        began = time.perf_counter()

        async def lane(at: float, requests: tuple[Request, ...]) -> list[Answer]:
            await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
            return [await _ask(session, request, made[id(request)]) for request in requests]

        found = await asyncio.gather(*(lane(one.at, one.requests) for one in case.lanes))
        return Sent([answer for answers in found for answer in answers], time.perf_counter() - began)


async def _ask(session: aiohttp.ClientSession, request: Request, data: bytes) -> Answer:
    answer = Answer(request.part)
    began = time.perf_counter()
    try:
        headers = {"Content-Type": "application/json"}
        async with session.post(_PATH, data=data, headers=headers) as response:
            if response.status != 200:
                text = (await response.text())[:500]
                raise BenchmarkError(f"{request.part}: HTTP {response.status}: {text}")
            async for line in response.content:
                if line.startswith(b"data: {"):
                    _read(json.loads(line[6:]), answer, time.perf_counter() - began)
    except (OSError, aiohttp.ClientError, TimeoutError) as error:
        raise BenchmarkError(f"{request.part}: {error!r}") from None
    answer.seconds = time.perf_counter() - began
    # An answer without text ends with its first token.
    answer.first_token = answer.arrivals[0] if answer.arrivals else answer.seconds
    if request.answers:
        answer.right = exact_match(answer.text, request.answers)
    return answer


def _read(chunk: dict[str, Any], answer: Answer, now: float) -> None:
    """One event of the stream.

    Raises:
        BenchmarkError: it is an error.
    """
    if "error" in chunk:
        raise BenchmarkError(f"{answer.part}: {chunk['error']}")
    for choice in chunk.get("choices", ()):
        if text := choice.get("delta", {}).get("content"):
            answer.arrivals.append(now)
            answer.text += text
    if usage := chunk.get("usage"):
        answer.prompt_tokens, answer.tokens = usage["prompt_tokens"], usage["completion_tokens"]
        details = usage.get("prompt_tokens_details") or {}
        answer.cached_tokens = details.get("cached_tokens") or 0
    if report := chunk.get("sgl"):
        answer.sgl = report
