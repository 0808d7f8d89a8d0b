"""What a check says: a status, what was found, why it matters, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OK, WARNING, WRONG, NOT_APPLICABLE = "ok", "warning", "wrong", "not applicable"


@dataclass(frozen=True)
class Fix:
    """One thing to do: words, a command line where there is one, and who may do it.

    command is for the system's own shell: sh, or cmd on Windows; never PowerShell.
    """

    say: str
    command: str = ""
    administrator: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "say": self.say,
            "command": self.command or None,
            "administrator": self.administrator,
        }


@dataclass(frozen=True)
class Finding:
    """The answer of one check.

    name is for programs, title for people. found has the figures; why is '' where all is well.
    """

    name: str
    title: str
    status: str
    found: str
    why: str = ""
    fixes: tuple[Fix, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "status": self.status,
            "found": self.found,
            "why": self.why or None,
            "fixes": [fix.to_json() for fix in self.fixes],
        }


@dataclass(frozen=True)
class Check:
    """The name and title of one question; its methods make the answers."""

    name: str
    title: str

    def ok(self, found: str) -> Finding:
        return Finding(self.name, self.title, OK, found)

    def warning(self, found: str, why: str, *fixes: Fix) -> Finding:
        return Finding(self.name, self.title, WARNING, found, why, fixes)

    def wrong(self, found: str, why: str, *fixes: Fix) -> Finding:
        return Finding(self.name, self.title, WRONG, found, why, fixes)

    def skipped(self, found: str) -> Finding:
        """Not applicable, and why not."""
        return Finding(self.name, self.title, NOT_APPLICABLE, found)
