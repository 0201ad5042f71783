"""Sizes in bytes, as users write them."""

import re

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT]i?B)", re.IGNORECASE)
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(value: str | int | float) -> int:
    """Bytes of ``'4GiB'`` and the like (powers of 1024 for KiB and KB alike); plain numbers are bytes."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return int(value)
    if isinstance(value, str):
        if match := _SIZE.fullmatch(value.strip()):
            return int(float(match["number"]) * (1 << _UNITS[match["unit"][0].lower()]))
        if value.strip().isdigit():
            return int(value)
    raise ValueError(f"expected a size in bytes or such as '256MiB', received {value!r}")
