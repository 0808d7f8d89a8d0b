"""What a check says: findings, and how bad they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import FormatError

NOTE, OK, WARNING, WRONG = "note", "ok", "warning", "wrong"
_RANKS = (NOTE, OK, WARNING, WRONG)


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    severity: 'note' for what is only said, 'warning' for what may be a problem on some machines,
              'wrong' for what must not be.
    where:    the file, and the part of it, in the wheel; '' for the wheel itself.
    """

    severity: str
    what: str
    where: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One question asked of a wheel, and all that was found."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def result(self) -> str:
        """'ok', 'warning' or 'wrong': the worst of its findings."""
        severities = (finding.severity for finding in self.findings)
        return max((OK, *severities), key=_RANKS.index)


def note(what: str, where: str = "", details: Iterable[str] = ()) -> Finding:
    return Finding(NOTE, what, where, tuple(details))


def warning(what: str, where: str = "", details: Iterable[str] = ()) -> Finding:
    return Finding(WARNING, what, where, tuple(details))


def wrong(what: str, where: str = "", details: Iterable[str] = ()) -> Finding:
    return Finding(WRONG, what, where, tuple(details))


def refused(error: FormatError) -> Finding:
    """What cannot be read, as a finding."""
    return wrong(error.what, error.where or "", [*error.details, *filter(None, [error.hint])])
