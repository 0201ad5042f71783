"""Requests and closed-loop clients."""

import base64
import io
import json
import random
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image, ImageDraw

from tools.tiny_internvl.tokenizer import IM_END

from .server import Server

#: Keeps every model of the benchmarks from ending its answer, so that all are as long as their limit. Under
#: ``ignore_eos`` the guide would end its own all the same, and an answer that is too short is no exit.
ENDLESS = {"bad_words": [IM_END]}

#: 70 tokens of the small tokenizer; a number follows.
QUESTION = (
    "What is written on the sign next to the door, and how many people are in the picture? Answer the "
    "question using a single word or phrase, and read the number on the right."
)


@dataclass(frozen=True)
class Reply:
    seconds: float
    text: str
    usage: dict
    sgl: dict | None


def picture(seed: int, width: int, height: int) -> bytes:
    """A JPEG that no other seed gives: a cache that knew it would make a side look faster than it is."""
    draw_from = random.Random(seed)
    image = Image.new("RGB", (width, height), (seed % 251, seed // 251 % 251, 90))
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        left, top = draw_from.randrange(width), draw_from.randrange(height)
        box = (left, top, left + draw_from.randint(8, width // 3), top + draw_from.randint(8, height // 3))
        draw.rectangle(box, fill=tuple(draw_from.randrange(256) for _ in range(3)))
    draw.text((10, 10), f"sign {seed}", fill="white")
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def content(seed: int, size: tuple[int, int]) -> list[dict]:
    """A user's turn about a picture of its own, in a data URL; the question differs too."""
    url = "data:image/jpeg;base64," + base64.b64encode(picture(seed, *size)).decode()
    text = f"{QUESTION} {seed}"
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]


def body(
    content: list[dict], max_tokens: int, options: dict | None = None, fixed_length: bool = True
) -> bytes:
    """A greedy request. options: its `vllm_xargs`. fixed_length: whether it goes on past its own end."""
    request = {
        "model": "model",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
        **(ENDLESS if fixed_length else {}),
    }
    return json.dumps(request | ({"vllm_xargs": options} if options else {})).encode()


def bodies(
    seeds: Sequence[int], size: tuple[int, int], max_tokens: int, options: dict | None = None
) -> list[bytes]:
    """One greedy request per seed, each about a picture of its own; options: its `vllm_xargs`."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda seed: body(content(seed, size), max_tokens, options), seeds))


def ask(server: Server, requests: Sequence[bytes], clients: int) -> tuple[list[Reply], float]:
    """Send all requests, ``clients`` at a time; the replies and the seconds from first to last."""

    def one(body: bytes) -> Reply:
        began = time.perf_counter()
        reply = server.post("/v1/chat/completions", body)
        seconds = time.perf_counter() - began
        text = reply["choices"][0]["message"]["content"]
        return Reply(seconds, text, reply["usage"], reply.get("sgl"))

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        replies = list(pool.map(one, requests))
    return replies, time.perf_counter() - began


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
