"""What travels beside a request through vLLM's server: the client's settings on the way in, reports on the
way out.

One client request makes several engine requests if it has several prompts.
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
    seen: whether the request body was inspected. If not, assume that it may use tools.
    keys: the ``vllm_xargs`` that are ours or look like it, as the client wrote them: vLLM parses the body
        too, but turns true and false into 1 and 0.
    headers: names and values of the HTTP headers that are ours or look like it.
    model: the model's name that it asked for, where that names a profile. profile: this one.
    requests: its engine requests, in the order of the prompts.
    several: whether they are several prompts, made together. Rounds of one answer follow one another.
    options: its settings, once parsed (:func:`vllm_sgl.request.options.options_of`).
    failure: why an engine request failed: no guidance, or the end of the server."""

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
        """Add an engine request. A beam search counts as one request, however many steps it takes."""
        if not (self.beam_search and self.requests):
            self.several |= any(made.report is None for made in self.requests)
            self.requests.append(EngineRequest(self, choices))
        return self.requests[-1]

    @property
    def reports(self) -> list[Report | None]:
        """One report per engine request; None if it is not decided yet."""
        return [made.report for made in self.requests]

    @property
    def report(self) -> Report | None:
        """The last report: of several rounds, that of the round that gave the answer."""
        return next((made.report for made in reversed(self.requests) if made.report is not None), None)

    def as_written(self, extra_args: Mapping[str, Any] | None) -> dict[str, Any]:
        """An engine request's ``extra_args`` with the keys as the client wrote them."""
        extra_args = extra_args or {}
        return {**extra_args, **{key: self.keys[key] for key in self.keys if key in extra_args}}


#: Set per HTTP request by the middleware; tasks made for the request inherit it.
current: ContextVar[Asked | None] = ContextVar("vllm_sgl_request", default=None)


@contextmanager
def asking(what: Asked) -> Iterator[None]:
    """Attribute the engine requests that are made inside the block to this client request."""
    token = current.set(what)
    try:
        yield
    finally:
        current.reset(token)
