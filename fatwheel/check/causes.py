"""Findings, the causes that they are signs of, and the verdict: the first cause that there is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

# In the order in which one brings about the next: who cures a later one first has cured nothing.
CAUSES = {
    "python": "another Python or system",
    "installed": "what is installed",
    "torch": "torch",
    "libraries": "libraries",
    "symbols": "symbols",
    "policy": "Windows' policies",
    "driver": "NVIDIA driver",
    "gpu": "code for this GPU",
    "import": "import",
}
NOTE, WARNING, WRONG = "note", "warning", "wrong"
SEVERITIES = (WRONG, WARNING, NOTE)


@dataclass(frozen=True)
class Cure:
    """What to do: a sentence, and the one command for it, or '' where there is none."""

    say: str
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"say": self.say, "command": self.command or None}


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    where: the file that it is about, or ''. names: of libraries, symbols or modules; an error of
    the import that says one of them is about this.
    """

    cause: str
    severity: str
    what: str
    where: str = ""
    details: tuple[str, ...] = ()
    cure: Cure | None = None
    names: tuple[str, ...] = ()

    def as_severe_as(self, severity: str) -> Finding:
        return replace(self, severity=severity)

    def to_json(self) -> dict[str, Any]:
        return {
            "cause": self.cause,
            "severity": self.severity,
            "what": self.what,
            "where": self.where or None,
            "details": list(self.details),
            "cure": self.cure.to_json() if self.cure else None,
        }


def note(cause: str, what: str, where: str = "", details: Iterable[str] = ()) -> Finding:
    return Finding(cause, NOTE, what, where, tuple(details))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By severity, and then by cause; of one cause as they were found."""
    places = list(CAUSES)
    return tuple(
        sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), places.index(f.cause)))
    )


def decisive(findings: Iterable[Finding]) -> Finding | None:
    """The finding that the verdict goes by: the first cause of what is wrong."""
    return next((found for found in in_order(findings) if found.severity == WRONG), None)
