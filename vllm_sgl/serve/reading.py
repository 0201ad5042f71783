"""Reads from a request's headers and body what an engine request does not show."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vllm_sgl.request.client_request import Asked
from vllm_sgl.request.options import HEADER_PREFIX, own_keys

_MARKS = (b'"tools"', b'"functions"', b'"use_beam_search"', b'"return_token_ids"', b'"vllm_xargs"')
#: A letter or an underscore that is written as an escape: any of those names may be written so.
_ESCAPED = re.compile(rb"\\u00(?:[46][1-9a-f]|[57][0-9a]|5f)", re.IGNORECASE)
_ESCAPE = b"\\u00"  # found much faster


def own_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """The headers of an ASGI scope that are ours or are misspelled as if they were; the engine checks
    them."""
    decoded = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
    return [own for own in decoded if own[0].replace("_", "-").startswith(HEADER_PREFIX)]


def read_body(body: bytes, about: Asked) -> None:
    """Note what a JSON body asks for; parses it only where it may ask for anything."""
    if not _may_ask(body):
        return
    try:
        wanted = json.loads(body)
    except (ValueError, RecursionError):
        return  # vLLM answers in its own words
    if isinstance(wanted, dict):
        read_fields(wanted, about)


def read_fields(wanted: Mapping[str, Any], about: Asked) -> None:
    """Note what the fields of a request ask for, as :func:`read_body`."""
    tools = wanted.get("tools") or wanted.get("functions")
    template = wanted.get("chat_template_kwargs")  # vLLM hands these to it as they are
    shown = template.get("tools") if isinstance(template, Mapping) else None
    about.tools = bool(shown) or (bool(tools) and wanted.get("tool_choice") != "none")
    about.beam_search = bool(wanted.get("use_beam_search"))
    about.token_ids = bool(wanted.get("return_token_ids"))
    keys = wanted.get("vllm_xargs")
    about.keys = own_keys(keys) if isinstance(keys, Mapping) else {}


def _may_ask(body: bytes) -> bool:
    """Whether one of the names may stand in it, in whatever way vLLM, which reads it by ``json``, would
    understand."""
    if json.detect_encoding(body) != "utf-8":  # UTF-16 and UTF-32 are read too
        return True
    return any(mark in body for mark in _MARKS) or (_ESCAPE in body and _ESCAPED.search(body) is not None)
