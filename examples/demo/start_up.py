"""What a server that starts is at, read from its log: one line per phase, with its seconds."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

#: (what the log says as a phase begins, what is shown), in the order of a start. Both engines log the same
#: words, each under its process's name.
PHASES = (
    (r"", "importing vLLM, reading both configs"),
    (r"\(SmallEngineCore\b.*Initializing a V1 LLM engine", "small model: starting its engine"),
    (r"\(SmallEngineCore\b.*Starting to load model", "small model: loading"),
    (r"\(SmallEngineCore\b.*Loading weights took", "small model: profiling"),
    (r"\(SmallEngineCore\b.*init engine \(profile", "large model: starting its process"),
    (r"\(EngineCore\b.*Initializing a V1 LLM engine", "large model: starting its engine"),
    (r"\(EngineCore\b.*Starting to load model", "large model: loading"),
    (r"\(EngineCore\b.*Loading weights took", "large model: profiling"),
    (r"\(EngineCore\b.*init engine \(profile", "both: a first request, and opening the port"),
)


class StartUp:
    """Shows the phase that a log has come to.

    Args:
        log: of a server that starts.
        out: where it is shown. A terminal's last line counts seconds; elsewhere a phase is a line as it ends.
        clock: seconds.
    """

    def __init__(
        self, log: Path, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._out, self._clock = log, out or sys.stdout, clock
        self._began = self._phase_began = clock()
        self._phase = 0

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    def look(self) -> None:
        """Show what has changed since the last look."""
        text = self._log.read_text(errors="replace")
        reached = max(place for place, (marker, _) in enumerate(PHASES) if re.search(marker, text))
        while self._phase < reached:
            self._end()
            self._phase += 1
        if self._out.isatty():
            self._out.write(f"\r{self._line()} ...")
            self._out.flush()

    def ready(self) -> None:
        """The server answers."""
        self.look()
        self._end()
        self._out.write(f"  ready after {self.seconds:.0f} s; the server's log is {self._log}\n\n")
        self._out.flush()

    def _end(self) -> None:
        terminal = self._out.isatty()
        self._out.write(("\r" if terminal else "") + self._line() + ("    \n" if terminal else "\n"))
        self._out.flush()
        self._phase_began = self._clock()

    def _line(self) -> str:
        return f"  {PHASES[self._phase][1]:44}{self._clock() - self._phase_began:5.1f} s"
