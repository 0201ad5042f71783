"""What a request's headers and body ask for that an engine request does not show."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vllm_sgl.config import REQUEST_PREFIX
from vllm_sgl.engine.asked import Asked
from vllm_sgl.options import HEADER_PREFIX

_ASKS = (b'"tools"', b'"functions"', b'"use_beam_search"', b'"return_token_ids"')
#: An object's key of ours with a boolean for a value. Inside a string its quotes would be escaped.
_BOOLEAN = re.compile(rb'"(' + REQUEST_PREFIX.encode() + rb'\w+)"\s*:\s*(true|false)')


def own_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Those of an ASGI scope that are ours, with those that somebody meant to be; the engine checks them."""
    decoded = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    return [own for own in decoded if own[0].replace("_", "-").startswith(HEADER_PREFIX)]


def read_body(body: bytes, about: Asked) -> None:
    """Note what a JSON body asks for; parses it only where it may ask for anything."""
    about.booleans = {key.decode(): value == b"true" for key, value in _BOOLEAN.findall(body)}
    if not any(mark in body for mark in _ASKS):
        return
    try:
        wanted = json.loads(body)
    except ValueError:
        return  # vLLM answers 400 in its own words
    if isinstance(wanted, dict):
        read_fields(wanted, about)


def read_fields(wanted: Mapping[str, Any], about: Asked) -> None:
    """The same from the fields of a request."""
    tools = wanted.get("tools") or wanted.get("functions")
    about.tools = bool(tools) and wanted.get("tool_choice") != "none"
    about.beam_search = bool(wanted.get("use_beam_search"))
    about.token_ids = bool(wanted.get("return_token_ids"))
