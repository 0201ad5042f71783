"""One run of all sections, and what a section gives back."""

from dataclasses import dataclass, field

from benchmarks.support.workspace import Workspace


@dataclass
class Section:
    """What a section found. Each row is one line of its table; a failure makes the section red."""

    rows: list[dict] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sides: list = field(default_factory=list)  # of `serve`, for `memory`

    def expect(self, holds: bool, otherwise: str) -> bool:
        if not holds:
            self.failures.append(otherwise)
        return holds


@dataclass
class Check(Workspace):
    """found: sections that have run; a later one may build on an earlier one's rows."""

    found: dict[str, Section] = field(default_factory=dict)

    @property
    def smoke(self) -> bool:
        """Tiny models on a CPU."""
        return self.cpu
