"""Runs all checks of a wheel: `invoke verify`.

Every check looks at the same evidence, and tells all that it finds. The result's shape is fixed
by `schemas/verify.schema.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.recipe import Target
from ..errors import VerifyError
from ..fatbin.images import shorten
from ..model import Front
from ..provenance.record import FILE as RECORD_FILE
from ..provenance.record import plans_of, record_of
from .claims import (
    import_findings,
    label_findings,
    libstdcxx_findings,
    module_findings,
    name_findings,
    platform_findings,
    record_findings,
)
from .device import coverage_findings, driver_findings, in_part_notes, parity_findings
from .evidence import OK, WRONG, Check, Evidence, Examined, Finding, gather, wrong
from .inspect import report_binary, report_coverage, report_wheel
from .libraries import imports_of, runtimes_of
from .provenance import provenance_findings
from .stable import abi_findings


@dataclass(frozen=True)
class Report:
    """What was found in one wheel.

    runtime: figures of trying it, as the schema has them; None where it was not tried.
    """

    evidence: Evidence
    checks: tuple[Check, ...]
    runtime: Mapping[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; warnings may be there."""
        return all(check.result != WRONG for check in self.checks)

    def result_of(self, name: str) -> str:
        """What a check came to: 'ok', 'warning' or 'wrong'; 'ok' where it was not made."""
        return next((check.result for check in self.checks if check.name == name), OK)

    def to_json(self) -> dict[str, Any]:
        evidence = self.evidence
        tried = {} if self.runtime is None else {"runtime": dict(self.runtime)}
        return {
            "file": evidence.filename,
            "wheel": report_wheel(evidence, evidence.papers.inside.get(RECORD_FILE)),
            "ok": self.ok,
            "checks": [_report_check(check) for check in self.checks],
            "binaries": [_report_examined(binary, evidence) for binary in evidence.binaries],
            **report_coverage([binary.contents for binary in evidence.binaries], in_wheel=True),
            **tried,
        }


def verify_wheel(path: Path) -> Report:
    """Check a wheel that anyone built.

    UsageError where there is no such file; FormatError where it is no wheel, or its archive is
    damaged or hostile, so that nothing in it can be believed.
    """
    evidence = gather(path)
    return Report(evidence, checks_of(evidence))


def checks_of(evidence: Evidence) -> tuple[Check, ...]:
    """Every check, in the order in which they are shown."""
    found: dict[str, Iterable[Finding]] = {
        "record": record_findings(evidence),
        "provenance": provenance_findings(evidence),
        "names": name_findings(evidence),
        "label": label_findings(evidence),
        "platform": platform_findings(evidence),
        "binaries": evidence.unreadable,
        "modules": module_findings(evidence),
        "imports": import_findings(evidence),
        "abi": abi_findings(evidence),
        "coverage": coverage_findings(evidence),
        "parity": parity_findings(evidence),
        "driver": driver_findings(evidence),
    }
    return tuple(Check(name, tuple(findings)) for name, findings in found.items())


def refusal(report: Report) -> VerifyError:
    """The error to end with if a check failed; the report has the details."""
    failed = [check.name for check in report.checks if check.result == WRONG]
    return VerifyError(
        f"this wheel failed checks: {', '.join(failed)}", where=report.evidence.filename
    )


def _report_check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "result": check.result,
        "findings": [
            {
                "severity": finding.severity,
                "where": finding.where or None,
                "what": finding.what,
                "details": list(finding.details),
            }
            for finding in check.findings
        ],
    }


def _report_examined(binary: Examined, evidence: Evidence) -> dict[str, Any]:
    return {
        **report_binary(binary.contents, runtimes_of(binary.imports, evidence.shipped)),
        "imports": [
            {"name": found.name, "from": found.origin, "version": found.version or None}
            for found in imports_of(binary.imports, evidence.shipped)
        ],
    }


# -- finished wheels -------------------------------------------------------------------------------

# Reads a finished wheel back: it must pass all checks, and hold what was asked for.


def check_wheel(
    path: Path, target: Target, fronts: Sequence[Front], front_units: Collection[str] = ()
) -> tuple[str, ...]:
    """What the user should know of a wheel that was built with these fronts, in sentences.

    front_units: the names of the units that the fronts are for, where they are not for all.

    Raises VerifyError, with all that is wrong, where the wheel is not what was built. FormatError
    where the archive itself is not sound.
    """
    wanted = [code for front in fronts for code in front.codes]
    report = verify_wheel(path)
    asked = Check("asked", tuple(_asked_findings(report.evidence, target, wanted)))
    mistakes = [
        finding
        for check in (asked, *report.checks)
        for finding in check.findings
        if finding.severity == WRONG
    ]
    if mistakes:
        raise VerifyError(
            "the finished wheel is not what was asked for",
            where=path.name,
            details=[line for finding in mistakes for line in _lines(finding)],
            hint=f"asked for: {', '.join(wanted)}",
        )
    record = report.evidence.papers.inside.get(RECORD_FILE)
    units = record_of(record).units if record else ()
    told = (line for one in libstdcxx_findings(report.evidence) for line in _lines(one))
    return (*in_part_notes(report.evidence, units, fronts[-1].codes[0], front_units), *told)


def _asked_findings(evidence: Evidence, target: Target, wanted: Sequence[str]) -> Iterator[Finding]:
    """Every unit must hold every image that it was to be built for, once; the version must be the
    recipe's."""
    plans, spare = plans_of(evidence.papers.inside.get(RECORD_FILE)), 0
    slices = {one.path: one.containers for one in evidence.papers.slices}
    with_code = [b.contents for b in evidence.binaries if b.contents.containers]
    if not with_code:
        yield wrong("no binary in it holds device code")
    for contents in with_code:
        count = Counter(image.name for image in contents.images)
        right: Counter[str] = Counter()
        # Without a record nothing is known of slices.
        for container in slices.get(contents.path, [{"": ""}] * contents.containers):
            if container or spare == plans.spare:
                planned = plans.of(container)
                right.update(wanted if planned is None else planned)
            else:
                spare += 1
        for code in wanted:
            if count[code] != right[code]:
                yield wrong(f"{code} is in {count[code]} of {right[code]} units", contents.path)
    if not evidence.version.startswith(f"{target.recipe.version}+"):
        yield wrong(f"its version is {evidence.version}, the recipe's {target.recipe.version}")


def _lines(finding: Finding) -> Iterator[str]:
    yield ": ".join(part for part in (finding.where, finding.what) if part)
    yield from (f"  {line}" for line in shorten(finding.details))
