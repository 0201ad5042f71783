"""What travels beside a request through vLLM's server: what the client asked for in, the report out."""

from contextvars import ContextVar
from dataclasses import dataclass

from vllm_sgl.core import Report


@dataclass
class Asked:
    """tools, beam_search, token_ids: what the client asked for that an engine request does not show.
    report: filled in when the engine has decided; the response takes it from here."""

    tools: bool = False
    beam_search: bool = False
    token_ids: bool = False
    report: Report | None = None


#: Set per HTTP request by the middleware; tasks made for the request inherit it.
current: ContextVar[Asked | None] = ContextVar("vllm_sgl_request", default=None)
