"""What travels beside a request through vLLM's server: what the client asked for in, the reports out.

One request of a client may make several of the engine, as several prompts in one request do.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm_sgl.core import Report

if TYPE_CHECKING:
    from vllm_sgl.request.options import RequestOptions


@dataclass
class EngineRequest:
    """choices: how many answers it makes. report: filled in when it has been decided; without its tensors,
    because it may stay for as long as a client may fetch the response again."""

    asked: "Asked" = field(repr=False)
    choices: int
    report: Report | None = None


@dataclass
class Asked:
    """tools, beam_search, token_ids: what the client asked for that an engine request does not show.
    seen: whether anybody could look; where nobody did, tools may have been asked for.
    keys: of its ``vllm_xargs``, those of ours and whatever looks like them, as the client wrote them: vLLM
        makes 1 and 0 of true and false on the way.
    headers: of the HTTP request, those of ours and whatever looks like them: names and values.
    model: the model's name that it asked for, where that names a profile. profile: this one.
    requests: of the engine, in the order in which they were made, which is that of the prompts.
    several: whether they are several prompts, made together. Rounds of one answer follow one another.
    options: its settings, once parsed (:func:`vllm_sgl.request.options.options_of`).
    failure: what an engine request failed with for want of guidance, or because the server ends."""

    tools: bool = False
    beam_search: bool = False
    token_ids: bool = False
    seen: bool = True
    keys: Mapping[str, Any] = field(default_factory=dict)
    headers: Sequence[tuple[str, str]] = ()
    model: str | None = None
    profile: str | None = None
    requests: list[EngineRequest] = field(default_factory=list)
    several: bool = False
    options: "RequestOptions | None" = None
    failure: Exception | None = None

    def request(self, choices: int) -> EngineRequest:
        """One more request of the engine. All those of a beam search are one: its steps, not its answers."""
        if not (self.beam_search and self.requests):
            self.several |= any(made.report is None for made in self.requests)
            self.requests.append(EngineRequest(self, choices))
        return self.requests[-1]

    @property
    def reports(self) -> list[Report | None]:
        """Of each request of the engine; None where it is not decided."""
        return [made.report for made in self.requests]

    @property
    def report(self) -> Report | None:
        """The last one: where rounds follow one another, that of the round that gave the answer."""
        return next((made.report for made in reversed(self.requests) if made.report is not None), None)

    def as_written(self, extra_args: Mapping[str, Any] | None) -> dict[str, Any]:
        """An engine request's ``extra_args`` with the keys as the client wrote them."""
        extra_args = extra_args or {}
        return {**extra_args, **{key: self.keys[key] for key in self.keys if key in extra_args}}


#: Set per HTTP request by the middleware; tasks made for the request inherit it.
current: ContextVar[Asked | None] = ContextVar("vllm_sgl_request", default=None)


@contextmanager
def asking(what: Asked) -> Iterator[None]:
    """Engine requests made while open are part of this one."""
    token = current.set(what)
    try:
        yield
    finally:
        current.reset(token)
