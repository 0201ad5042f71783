"""The report as response headers, for clients that show only the fields of a body that they know."""

import string
from collections.abc import Sequence
from urllib.parse import quote

from vllm_sgl.core import Report

#: What a header's value may be made of as it is; everything else is percent-encoded.
_PLAIN = string.punctuation.replace("%", "")
_PROMPTS = b"sgl-prompts"

Header = tuple[bytes, bytes]


def report_headers(reports: Sequence[Report | None]) -> list[Header]:
    """One header per value of the report that is there: ``sgl-decision``, ``sgl-kept``, ...

    Args:
        reports: of each prompt of the request; None where it is not decided yet, or nothing is to be decided.
            Of several, headers say what all of them agree in, and how many there are.
    """
    values = [{} if report is None else report.as_dict() for report in reports]
    common = values[0] if values else {}
    for other in values[1:]:
        common = {name: value for name, value in common.items() if name in other and other[name] == value}
    count = [(_PROMPTS, str(len(reports)).encode())] if len(reports) > 1 else []
    return count + [
        (header_name(name).encode(), quote(str(value), safe=_PLAIN).encode())
        for name, value in common.items()
        if value is not None
    ]


def header_name(field: str) -> str:
    """The header of a field of the report."""
    return "sgl-" + field.removesuffix("_tokens").replace("_", "-")
