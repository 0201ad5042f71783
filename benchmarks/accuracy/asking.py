"""One question under one setting: what is sent, and what has to come back."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from tools.internvl_reference.tiling import Tiling
from vllm_sgl.evaluate.backends import Reply
from vllm_sgl.evaluate.questions import Question, data_url, encoded
from vllm_sgl.prune.base import kept_count

from .baselines import tome
from .ranking_guide import QUESTION, RANKING, RETENTION
from .settings import METHODS, Setting

#: So small a share that one visual token is left of any prompt.
_ONE_TOKEN = 1e-9


@dataclass(frozen=True)
class Ask:
    """One request. max_tokens: the longest answer."""

    question: Question
    setting: Setting
    tiling: Tiling
    max_tokens: int

    @property
    def messages(self) -> list[dict[str, Any]]:
        """An OpenAI conversation: the images, then the question."""
        urls = map(self._data_url, self.question.images, self._sizes)
        images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return [{"role": "user", "content": [*images, {"type": "text", "text": self.question.text}]}]

    @property
    def xargs(self) -> dict[str, Any]:
        """The request's ``sgl_*`` keys, and the ranking that it wants."""
        setting = self.setting
        if setting.method in ("full", "downsample"):
            return {"sgl_enabled": 0}
        if setting.method == "small":
            return {"sgl_exit_threshold": 0, "sgl_guide_tokens": self.max_tokens}
        if self._merged:  # its answer comes from where the guide's would, and ends the request
            return {"sgl_exit_threshold": 0, **self._ranking, RETENTION: setting.retention}
        threshold = "off" if setting.exit_threshold is None else setting.exit_threshold
        keys = {"sgl_retention": setting.retention or _ONE_TOKEN, "sgl_exit_threshold": threshold}
        if setting.query_rows is not None:
            keys["sgl_query_rows"] = setting.query_rows
        return keys | self._ranking

    @property
    def _ranking(self) -> dict[str, Any]:
        ranking = METHODS[self.setting.method].ranking
        return {RANKING: ranking, QUESTION: self.question.id} if ranking else {}

    @property
    def _merged(self) -> bool:
        """Whether visual tokens are merged, which vLLM's engine cannot take."""
        return self.setting.method == "tome"

    def record(self, reply: Reply) -> dict[str, Any]:
        """What is kept of a reply.

        Raises:
            RuntimeError: where the request went another way than its setting says.
        """
        self._check(reply.sgl)
        sgl = reply.sgl or {"visual_tokens": self._visual_tokens, "kept_tokens": self._visual_tokens}
        # A method that ranks by the large model's own features has every tile encoded, whatever it keeps.
        all_encoded = reply.sgl is None or METHODS[self.setting.method].outside
        kept = self._merged_tokens if self._merged else sgl["kept_tokens"]
        return {
            "question": self.question.id,
            **self.setting.as_dict(),
            "answer": reply.text,
            "prompt_tokens": reply.prompt_tokens,
            "answer_tokens": reply.answer_tokens,
            "exited": sgl.get("decision") == "exit",
            "visual_tokens": sgl["visual_tokens"],
            "kept_tokens": kept,
            "tiles": self._tiles,
            "encoded_tiles": self._tiles if all_encoded else sgl.get("encoded_tiles"),
            "share": kept / sum(map(self._tokens, self._original_sizes)),
            "score": sgl.get("score"),
            "confidence": sgl.get("confidence"),
        }

    def _check(self, sgl: dict[str, Any] | None) -> None:
        where = f"question {self.question.id!r}, {self.setting.label}"
        unguided = self.setting.method in ("full", "downsample")
        if sgl is None:
            if not unguided:
                raise RuntimeError(
                    f"{where}: the reply has no sgl object, so the server runs without SGL; start it with "
                    "--sgl-small, or ask for --methods full downsample"
                )
            return
        expected = {"bypass"} if unguided else {"prune"}
        if self.setting.method == "small" or self._merged:
            expected = {"exit"}
        elif self.setting.exit_threshold is not None:
            expected = {"prune", "exit"}
        if sgl["decision"] not in expected:
            raise RuntimeError(
                f"{where}: expected the decision {' or '.join(sorted(expected))}, received {sgl['decision']} "
                f"({sgl['reason']}); an answer that went another way would count for the wrong method"
            )
        if sgl["visual_tokens"] != self._visual_tokens:
            raise RuntimeError(
                f"{where}: expected {self._visual_tokens} visual tokens, received {sgl['visual_tokens']}; "
                "the model tiles images in another way than its config.json says"
            )

    @cached_property
    def _original_sizes(self) -> list[tuple[int, int]]:
        """Width and height of each image."""
        sizes = []
        for path in self.question.images:
            with Image.open(path) as image:
                sizes.append(image.size)
        return sizes

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """Width and height of each image as it is sent."""
        if self.setting.method != "downsample":
            return self._original_sizes
        share = self.setting.retention
        return [self.tiling.downsampled(*size, share * self._tokens(size)) for size in self._original_sizes]

    @property
    def _visual_tokens(self) -> int:
        """Of all images, before any are dropped."""
        return sum(map(self._tokens, self._sizes))

    @property
    def _tiles(self) -> int:
        """Of all images, thumbnails included."""
        return self._visual_tokens // self.tiling.cells**2

    @property
    def _merged_tokens(self) -> int:
        return sum(tome.shares(kept_count(self.setting.retention, self._visual_tokens), self._tiles))

    def _tokens(self, size: tuple[int, int]) -> int:
        return self.tiling.tokens(self.tiling.grid(*size))

    def _data_url(self, path: Path, size: tuple[int, int]) -> str:
        if self.setting.method != "downsample":
            return data_url(path)
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(buffer, format="PNG")
        return encoded("image/png", buffer.getvalue())
