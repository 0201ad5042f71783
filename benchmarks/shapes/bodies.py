"""Requests as servers take them: JSON of `/v1/chat/completions`, with media that no server has seen."""

import base64
import io
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from PIL import Image

from benchmarks.support.load import ENDLESS
from tools.sign_reading.scene import Scene, paint

from .traffic.base import Case, Request, Turn
from .traffic.scenes import Media

#: Media -> data URL.
Urls = Mapping[Media, str]
#: Of a video's frames: JPEG spreads a single pixel over its block, and would lose it.
_MARK_SIDE = 8


def urls(case: Case, marks: Iterator[int]) -> dict[Media, str]:
    """A data URL for each medium of a case, with marks of its own: the next server gets others."""
    return {media: _url(media, next(marks)) for media in case.media()}


def body(request: Request, media: Urls, keys: Mapping[str, Any]) -> bytes:
    """A greedy streaming request. keys: its ``vllm_xargs``."""
    made = {
        "model": "model",
        "messages": [_message(turn, media) for turn in request.turns],
        "max_tokens": request.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.endless:
        made |= ENDLESS
    if keys:
        made["vllm_xargs"] = dict(keys)
    return json.dumps(made).encode()


def _message(turn: Turn, media: Urls) -> dict[str, Any]:
    if not turn.media:
        return {"role": turn.role, "content": turn.text}
    parts = [_part(one, media[one]) for one in turn.media]
    return {"role": turn.role, "content": [*parts, {"type": "text", "text": turn.text}]}


def _part(media: Media, url: str) -> dict[str, Any]:
    kind = "video_url" if media.video else "image_url"
    return {"type": kind, kind: {"url": url}}


def _url(media: Media, mark: int) -> str:
    if media.video:
        frames = [_encoded(_marked(scene, mark, _MARK_SIDE), "JPEG") for scene in media.frames]
        return "data:video/jpeg;base64," + ",".join(frames)
    return "data:image/png;base64," + _encoded(_marked(media.frames[0], mark, 1), "PNG")


@lru_cache(maxsize=512)
def _painted(scene: Scene) -> Image.Image:
    return paint(scene).convert("RGB")


def _marked(scene: Scene, mark: int, side: int) -> Image.Image:
    """With a square of its own colour in the corner."""
    image = _painted(scene).copy()
    image.paste((mark % 256, mark // 256 % 256, mark // 65536 % 256), (0, 0, side, side))
    return image


def _encoded(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **({"compress_level": 1} if kind == "PNG" else {"quality": 95}))
    return base64.b64encode(buffer.getvalue()).decode()
