"""What `invoke lock` found, to stdout: a line and a table for each toolchain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .. import text
from .console import out, write, write_rows
from .tables import Row

if TYPE_CHECKING:
    from ..toolchain.compare import Finding
    from ..toolchain.lock import LockReport
    from ..toolchain.published import Values

_STATES = {
    "right": "as published",
    "filled": "filled in",
    "open": "not known yet",
    "moved": "moved",
    "unreachable": "not reached",
}


def show_locks(reports: Sequence[LockReport]) -> None:
    """Each toolchain's count of pins by state, and those that are not as published."""
    console = out()
    for report in reports:
        count = ", ".join(
            f"{number} {_STATES[state]}" for state, number in report.count().items() if number
        )
        total = text.count(len(report.findings), "pin")
        write(console, (report.toolchain, "bold"), f": {total}: {count}")
        write_rows(console, lock_rows(report.findings))
        if report.written:
            write(console, f"written to {report.file}")


def lock_rows(findings: Iterable[Finding]) -> list[Row]:
    """A row for each pin that is not as published."""
    return [
        {
            "file": finding.name,
            "state": _STATES[finding.state],
            "pinned": _words(finding.pinned, _of_interest(finding)),
            "found": _words(finding.found, _of_interest(finding)),
            "note": finding.note,
        }
        for finding in findings
        if finding.state != "right"
    ]


def _of_interest(finding: Finding) -> set[str]:
    """The values that are new or differ."""
    return {
        name
        for name, value in finding.found.items()
        if name not in finding.pinned or finding.pinned[name] != value
    }


def _words(values: Values, names: set[str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if name in names)
