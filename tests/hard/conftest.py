"""`make test` runs what fits its time; `make hard` all of this folder."""

from .scale import FULL

#: Each of these keeps a server busy for minutes.
collect_ignore = (
    []
    if FULL
    else [
        "test_bad_starts.py",
        "test_odd_requests.py",
        "test_overload.py",
        "test_processes.py",
        "test_start_phases.py",
    ]
)
