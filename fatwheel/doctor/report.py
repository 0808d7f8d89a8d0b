"""Runs all checks of a machine and summarizes them: `invoke doctor`.

The result's shape is fixed by `schema/doctor.schema.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ToolchainError
from . import check_engine, check_toolchain, checks
from .facts import NOT_APPLICABLE, OK, WARNING, WRONG, Facts, Finding, Fix
from .gather import gather

STATUSES = (WRONG, WARNING, OK, NOT_APPLICABLE)


@dataclass(frozen=True)
class Report:
    """A workstation, for one toolchain and engine."""

    host: str
    toolchain: str
    engine: str
    python: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; warnings may be there."""
        return all(finding.status != WRONG for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "toolchain": self.toolchain,
            "engine": self.engine,
            "python": self.python,
            "ok": self.ok,
            "summary": {
                status: sum(finding.status == status for finding in self.findings)
                for status in STATUSES
            },
            "checks": [finding.to_json() for finding in self.findings],
        }


def diagnose(toolchain: str | None, engine: str | None) -> Report:
    """Check this workstation; None chooses toolchain and engine as `invoke build` does.

    Changes nothing. Raises UsageError or ConfigError for a toolchain or an engine that cannot
    be; all else is a finding.
    """
    return report_on(gather(toolchain, engine))


def report_on(facts: Facts) -> Report:
    """Every check, in the order in which they are shown."""
    return Report(
        host=facts.host.name,
        toolchain=facts.toolchain.name,
        engine=facts.engine,
        python=facts.python,
        findings=(
            *checks.machine_findings(facts),
            *checks.network_findings(facts),
            *check_toolchain.findings(facts),
            *check_engine.findings(facts),
        ),
    )


def fixes_of(findings: tuple[Finding, ...], status: str) -> Iterator[tuple[Finding, Fix]]:
    """What to do about all findings of a status."""
    for finding in findings:
        if finding.status == status:
            yield from ((finding, fix) for fix in finding.fixes)


def refusal(report: Report) -> ToolchainError:
    """What to end with where something is wrong, whatever it is; the report tells the rest."""
    wrong = [finding.title for finding in report.findings if finding.status == WRONG]
    return ToolchainError(
        f"{report.toolchain} cannot be used here yet: {', '.join(wrong)}",
        hint="see above for what to do; `invoke setup` does what needs no administrator",
    )
