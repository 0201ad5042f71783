"""The OpenAI client, asking about pictures."""

import base64
import mimetypes
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openai

from .picture_questions import PictureQuestion
from .shipped import MAX_TOKENS


class Asker:
    """A client of the only model that is served at an address."""

    def __init__(self, address: str) -> None:
        self._client = openai.OpenAI(base_url=address, api_key="none")
        self._model = self._client.models.list().data[0].id

    def ask(self, question: PictureQuestion, options: Mapping[str, Any]) -> tuple[Any, float]:
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
