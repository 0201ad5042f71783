"""``--sgl-log`` and ``--sgl-shadow-log``: one JSON object a line for each request.

A thread writes it, so that a slow disk delays no request; a disk that fails loses lines, not requests. It
holds no images, and texts only under ``--sgl-log-text``.
"""

import hashlib
import json
import logging
import queue
import sys
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vllm_sgl.config import SGLConfig, named
from vllm_sgl.core import Report
from vllm_sgl.decide.scores.registry import SCORES
from vllm_sgl.request.options import RequestOptions
from vllm_sgl.telemetry.agreement import exact_match

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

    from vllm_sgl.request.client_request import EngineRequest

logger = logging.getLogger("vllm.vllm_sgl.request_log")

#: Files that are kept beside the one that is written, as FILE.1 and so on.
BACKUPS = 5
#: Lines that may wait for the disk; about 5 MB without text.
_WAITING = 10_000
#: Seconds that the end of a server waits for a disk that does not answer.
_PATIENCE = 5.0


def check(config: SGLConfig, prefix: str = "sgl_") -> None:
    """Refuse settings that do not go together, and files that cannot be written.

    Args:
        prefix: how the user wrote the keys: "sgl_" or "--sgl-".

    Raises:
        ValueError: naming the key, what is expected and what came.
    """
    log, shadow_log = named("log", prefix), named("shadow_log", prefix)
    if config.shadow_log is not None and not config.shadow:
        raise ValueError(
            f"{shadow_log}: expected {prefix}shadow beside it, because only a shadow has both models' "
            f"answers; received it alone. Add {prefix}shadow, or use {log}"
        )
    if config.log is not None and config.log == config.shadow_log:
        raise ValueError(f"{log} and {shadow_log}: expected two files, received {config.log!r} for both")
    for name, path in ((log, config.log), (shadow_log, config.shadow_log)):
        if path is not None:
            try:
                with Path(path).open("a", encoding="utf-8"):
                    pass
            except OSError as error:
                raise ValueError(
                    f"{name}: expected a file that can be written, in a directory that exists; received "
                    f"{path!r} ({error.strerror})"
                ) from None


class RequestLog:
    """The files that a configuration names. Belongs to the client's event loop, but for :meth:`close`."""

    def __init__(self, config: SGLConfig) -> None:
        self._config = config
        self._files: list[tuple[_Writer, bool]] = [
            (_Writer(path, int(config.log_size)), shadow)
            for path, shadow in ((config.log, False), (config.shadow_log, True))
            if path is not None
        ]

    @classmethod
    def of(cls, config: SGLConfig) -> "RequestLog | None":
        """None where nothing is to be logged.

        Raises:
            ValueError: as :func:`check`.
        """
        check(config)
        return cls(config) if config.log is not None or config.shadow_log is not None else None

    async def following(
        self,
        outputs: "AsyncGenerator[RequestOutput, None]",
        prompt: Any,
        params: "SamplingParams",
        request_id: str,
        options: RequestOptions,
        made: "EngineRequest",
    ) -> "AsyncGenerator[RequestOutput, None]":
        """The outputs of a request; logs its line when they end, however they end."""
        step = made.report is not None  # of a beam search, which is one request
        answer = _Answer(delta=params.output_kind.name == "DELTA")
        began, clock = datetime.now(UTC), time.monotonic()
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    answer.add(output)
                    yield output
        except Exception:
            answer.finish_reason = "error"
            raise
        finally:
            if not step:
                line: dict[str, Any] = {
                    "time": began.isoformat(timespec="milliseconds"),
                    "request": request_id,
                    **_decided(made.report, options),
                    "seconds": round(time.monotonic() - clock, 6),
                    **answer.figures(),
                    "images": _images(prompt),
                }
                self._write(line, made.report, answer, prompt, params.n)

    def close(self) -> None:
        """Write what waits, and let go of the files."""
        for writer, _ in self._files:
            writer.close()

    def _write(
        self, line: dict[str, Any], report: Report | None, answer: "_Answer", prompt: Any, n: int
    ) -> None:
        small = None if report is None else report.answer
        text: dict[str, Any] = {}
        if self._config.log_text:
            text = {"prompt": _prompt_text(prompt), "answer": answer.text}
        for writer, shadow in self._files:
            if not shadow:
                writer.write({**line, **text})
                continue
            # What is cut off is not an answer that could have been given.
            comparable = small is not None and small.finished and n == 1
            agrees = bool(exact_match(small.text, [answer.text])) if small and comparable else None
            said = {"small_answer": small.text if small else None} if text else {}
            writer.write({**line, "agrees": agrees, "scores": _scores(report), **text, **said})


class _Answer:
    """The first answer of a request, put together from its outputs. delta: each output has the rest only."""

    def __init__(self, delta: bool) -> None:
        self._delta = delta
        self.text = ""
        self._tokens = 0
        self._prompt_tokens = 0
        self.finish_reason: str | None = None

    def add(self, output: "RequestOutput") -> None:
        self._prompt_tokens = len(output.prompt_token_ids or ()) or self._prompt_tokens
        for one in output.outputs:
            if one.index == 0:
                self.text = self.text + one.text if self._delta else one.text
                count = len(one.token_ids)
                self._tokens = self._tokens + count if self._delta else count
                self.finish_reason = one.finish_reason

    def figures(self) -> dict[str, Any]:
        """Lengths and the finish reason, "abort" if the client left early."""
        return {
            "prompt_tokens": self._prompt_tokens,
            "answer_tokens": self._tokens,
            "finish_reason": self.finish_reason or "abort",
        }


def _decided(report: Report | None, options: RequestOptions) -> dict[str, Any]:
    """The settings and the decision; no decision if the request failed before it."""
    said = dict(Report("bypass").as_dict() if report is None else report.as_dict())
    return {
        "retention": options.retention,
        "policy": options.policy,
        "exit_threshold": options.exit_threshold,
        "exit_score": options.exit_score,
        **said,
        "decision": None if report is None else report.decision,
    }


def _scores(report: Report | None) -> dict[str, float] | None:
    """Every exit score that needs no more than what ran; None where the answer was not scored."""
    if report is None or report.score is None or report.answer is None:
        return None
    given, consistency = report.answer.logprobs, report.consistency
    return {
        name: score.of(given, consistency or 0.0)
        for name, score in SCORES.items()
        if consistency is not None or not score.needs_consistency
    }


def _images(prompt: Any) -> list[str]:
    """A name for each image or video of a rendered prompt, the same wherever it comes again: made of vLLM's
    hash, which may be a text of the client's."""
    hashes = prompt.get("mm_hashes") if isinstance(prompt, Mapping) else None
    found = [one for of in (hashes or {}).values() for one in of if one is not None]
    return [hashlib.sha256(str(one).encode()).hexdigest()[:16] for one in found]


def _prompt_text(prompt: Any) -> str | None:
    text = prompt.get("prompt") if isinstance(prompt, Mapping) else prompt
    return text if isinstance(text, str) else None


class _Writer:
    """One file and the thread that writes it, from the first line on."""

    def __init__(self, path: str, size: int) -> None:
        self._path = path
        self._file = _File(path, size)
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._full = self._closed = False

    def write(self, line: Mapping[str, Any]) -> None:
        record = logging.makeLogRecord({"msg": line})
        if self._closed:  # the last requests end with their server
            self._file.handle(record)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sgl-request-log", daemon=True)
            self._thread.start()
        try:
            self._lines.put_nowait(record)
            # Not at the first free place: a disk at its limit would be told of again and again.
            self._full = self._full and self._lines.qsize() > _WAITING // 2
        except queue.Full:
            if not self._full:
                logger.error("SGL: %s takes no more lines; requests go on, and lines are lost", self._path)
            self._full = True

    def close(self) -> None:
        """Write what waits; a disk that does not answer is not waited for."""
        self._closed = True
        thread, self._thread = self._thread, None
        if thread is not None:
            with suppress(queue.Full):
                self._lines.put(None, timeout=_PATIENCE)
                thread.join(_PATIENCE)

    def _run(self) -> None:
        while (record := self._lines.get()) is not None:
            self._file.handle(record)
        self._file.close()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(record.msg, ensure_ascii=False, allow_nan=False)


class _File(RotatingFileHandler):
    """Says once when it cannot be written, and once more when it could be in between."""

    def __init__(self, path: str, size: int) -> None:
        # Opened by the first line: what goes wrong then is handled as later.
        super().__init__(path, maxBytes=size, backupCount=BACKUPS, encoding="utf-8", delay=True)
        self.setFormatter(_Json())
        self._failed = self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        super().emit(record)
        self._told = self._told and self._failed

    def handleError(self, record: logging.LogRecord) -> None:
        self._failed = True
        if not self._told:
            self._told = True
            logger.error(
                "SGL: %s cannot be written (%s); requests go on, and lines are lost until it can be",
                self.baseFilename, sys.exc_info()[1],
            )  # fmt: skip
