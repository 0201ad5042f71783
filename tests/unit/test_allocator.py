"""Which allocator the servers of benchmarks and of the demo get."""

import pytest

from tools import allocator

FOUND = "libtcmalloc_minimal.so.4"


@pytest.mark.parametrize(
    ("given", "installed", "expected"),
    [
        ({}, FOUND, {"LD_PRELOAD": FOUND}),
        ({"LD_PRELOAD": "libiomp5.so"}, FOUND, {"LD_PRELOAD": f"{FOUND}:libiomp5.so"}),
        ({"LD_PRELOAD": "/opt/libtcmalloc.so"}, FOUND, {}),  # the user's own stays
        ({"LD_PRELOAD": "libiomp5.so"}, None, {}),
    ],
)
def test_tcmalloc_is_preloaded_where_it_is_installed(given, installed, expected, monkeypatch):
    monkeypatch.setattr("ctypes.util.find_library", lambda name: installed)
    added = allocator.preloaded(given)
    assert added == expected
    has_it = installed is not None or "tcmalloc" in str(given)
    assert (allocator.named(given | added) == "tcmalloc") == has_it
