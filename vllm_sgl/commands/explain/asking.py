"""Asking one question in every way that is to be explained, over one start of both engines."""

import asyncio
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from vllm import RequestOutput, SamplingParams
from vllm.exceptions import VLLMClientError

from vllm_sgl.commands.explain.clip import SeenVideo, moments
from vllm_sgl.commands.explain.explanation import Explanation, PrunedAnswer, Said, SeenImage
from vllm_sgl.core import GuideRequest, GuideResult
from vllm_sgl.decide.scores.parts import confidence
from vllm_sgl.engine.offline import LLM
from vllm_sgl.evaluate.errors import UsageError
from vllm_sgl.evaluate.questions import encoded
from vllm_sgl.families import family_of
from vllm_sgl.guide.base import Guide, GuideWrapper
from vllm_sgl.host.render import media_files
from vllm_sgl.visual.items import images_alone, placed_items
from vllm_sgl.visual.layout import LayoutOf
from vllm_sgl.visual.tiles import Tiles

#: One question does not repay compilation; a failing guide would turn a pruned answer into a full one, and so
#: would a follow-up of the unpruned one; no requests are served meanwhile, so a slow machine may take time.
_DEFAULTS = {
    "enforce_eager": True,
    "sgl_on_error": "fail",
    "sgl_break_even": "off",
    "sgl_follow_ups": "off",
    "sgl_guide_timeout": 600,
}


@dataclass(frozen=True)
class Video:
    """frames: uint8 [frames, height, width, 3], those that vLLM takes of the file. url: the whole file."""

    frames: np.ndarray
    url: str


def load(path: Path, of_videos: Mapping[str, Any]) -> Image.Image | Video:
    """An RGB image or a video, as a server would load it.

    Args:
        of_videos: how vLLM is to load videos.

    Raises:
        UsageError: for a file that is missing, or is neither.
    """
    kind = mimetypes.guess_type(path)[0] or ""
    is_video = kind.startswith("video/")
    try:
        if not is_video:
            return media_files.load_image(path)
        frames = media_files.load_frames(path, of_videos)
        return Video(frames, encoded(kind, path.read_bytes()))
    except (OSError, ValueError) as error:
        wanted = "a video file such as MP4" if is_video else "an image file such as PNG or JPEG"
        raise UsageError(f"{path}: expected {wanted}, received: {error}") from error


def explain(
    large: str,
    small: str,
    images: Sequence[tuple[str, Image.Image | Video]],
    question: str,
    *,
    retentions: Sequence[float],
    exit_threshold: float | None,
    max_tokens: int,
    arguments: Mapping[str, Any],
) -> Explanation:
    """Start both engines, ask, stop them.

    Args:
        images: (name, RGB image or video), in the order of the prompt.
        retentions: shares of visual tokens to keep, each in (0, 1).
        max_tokens: the longest answer.
        arguments: more arguments of :class:`vllm_sgl.LLM`.

    Raises:
        UsageError: for a pair that does not start, or a question that the small model cannot take.
    """
    looks: list[OneLook] = []

    def once(guide: Guide) -> OneLook:
        looks.append(OneLook(guide))
        return looks[0]

    try:
        llm = LLM(large, sgl_small=small, wrap_guide=once, **{**_DEFAULTS, **arguments})
    except (OSError, TypeError, ValueError, VLLMClientError) as error:
        raise UsageError(f"the pair does not start: {error}") from error
    try:
        plain, scored, *outputs = _ask(
            llm,
            _conversation((image for _, image in images), question),
            [
                {"sgl_enabled": 0},
                {"sgl_exit_threshold": 0},  # the score is worked out where an exit is possible
                *({"sgl_retention": share, "sgl_exit_threshold": "off"} for share in retentions),
                *([] if exit_threshold is None else [{"sgl_exit_threshold": exit_threshold}]),
            ],
            max_tokens,
        )
        if scored.sgl.decision == "bypass":
            raise UsageError(
                f"the small model cannot look at this question ({scored.sgl.reason}): give fewer or smaller "
                "images, or models with a longer context"
            )
        pruned = outputs[: len(retentions)]
        decided = outputs[len(retentions)].sgl if exit_threshold is not None else None
        said = looks[0].result.answer
        family = family_of(llm.model_config)
        return Explanation(
            large=large,
            small=small,
            question=question,
            query_rows=llm.llm_engine.sgl_config.query_rows,
            positions=llm.llm_engine.sgl_config.positions,
            images=_seen(
                images,
                family.layout_of(llm.model_config),
                family.tiles(llm.model_config),
                looks[0].request,
                looks[0].result.importance,
            ),
            small_answer=Said(said.text, len(said.token_ids), said.finish_reason == "stop"),
            large_answer=_answer(plain),
            pruned=[
                PrunedAnswer(share, [indices.numpy() for indices in output.sgl.kept], _answer(output))
                for share, output in zip(retentions, pruned, strict=True)
            ],
            confidence=confidence(said.logprobs),
            consistency=scored.sgl.consistency,
            score=scored.sgl.score,
            exit_threshold=exit_threshold,
            decision=decided and decided.decision,
            reason=decided and decided.reason,
        )
    finally:
        llm.shutdown()


class OneLook(GuideWrapper):
    """A :class:`vllm_sgl.guide.base.Guide` that looks once: the same importance, to the last bit, explains
    every retention."""

    def __init__(self, guide: Guide) -> None:
        super().__init__(guide)
        self._look: asyncio.Task[GuideResult] | None = None
        self._request: GuideRequest | None = None

    @property
    def request(self) -> GuideRequest:
        """What was looked at, after the first request."""
        assert self._request is not None
        return self._request

    @property
    def result(self) -> GuideResult:
        """What was seen, after the first request."""
        assert self._look is not None
        return self._look.result()

    async def look(self, request: GuideRequest, answer_tokens: int) -> GuideResult:
        if self._look is None:
            self._request = request
            self._look = asyncio.create_task(self._guide.look(request, answer_tokens))
        return await self._look


def _conversation(images: Iterable[Image.Image | Video], question: str) -> list[dict[str, Any]]:
    content = [
        {"type": "video_url", "video_url": {"url": image.url}}
        if isinstance(image, Video)
        else {"type": "image_pil", "image_pil": image}
        for image in images
    ]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def _ask(
    llm: LLM, conversation: list[dict[str, Any]], settings: Sequence[dict[str, Any]], max_tokens: int
) -> list[RequestOutput]:
    params = [SamplingParams(temperature=0, max_tokens=max_tokens, extra_args=keys) for keys in settings]
    try:
        outputs: list[RequestOutput] = llm.chat([conversation] * len(params), params, use_tqdm=False)
    except VLLMClientError as error:
        raise UsageError(f"the question cannot be asked: {error}") from error
    return outputs


def _answer(output: RequestOutput) -> Said:
    completion = output.outputs[0]
    return Said(completion.text, len(completion.token_ids), completion.finish_reason == "stop")


def _seen(
    images: Sequence[tuple[str, Image.Image | Video]],
    layout_of: LayoutOf,
    tiles: Mapping[str, Tiles],
    request: GuideRequest,
    importance: Sequence[torch.Tensor],
) -> list[SeenImage | SeenVideo]:
    """In the order of the prompt, which a chat template may make another one than that of the message."""
    pictures = ((name, image) for name, image in images if not isinstance(image, Video))
    videos = ((name, image) for name, image in images if isinstance(image, Video))
    seen: list[SeenImage | SeenVideo] = []
    placed = placed_items(request.prompt)
    for place, item, scores in zip(placed, request.items, importance, strict=True):
        if not images_alone([item]):
            name, video = next(videos)
            size = tiles[item.modality].size(request.prompt["mm_kwargs"][item.modality][place.index])
            frames = moments(video.frames, item.tiles)
            seen.append(SeenVideo(name, frames, item, size.across, size.down, scores.numpy()))
            continue
        name, image = next(pictures)
        layout = layout_of(*image.size)
        if layout.visual_tokens != len(scores):
            raise RuntimeError(
                f"{name}: expected {layout.visual_tokens} visual tokens for {image.size}, the engine reports "
                f"{len(scores)}: adapt layout_of() of the model's family in vllm_sgl/families/"
            )
        seen.append(SeenImage(name, image, layout, scores.numpy()))
    return seen
