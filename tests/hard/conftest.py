"""`make test` runs what fits its time; `make hard` all of this folder."""

from .scale import FULL

#: Each of their tests starts a server.
collect_ignore = [] if FULL else ["test_bad_starts.py", "test_start_phases.py"]
