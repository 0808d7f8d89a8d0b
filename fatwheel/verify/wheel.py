"""Reads a finished wheel back: it must pass all checks, and hold what was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import VerifyError
from ..model import Front, Target
from .evidence import Evidence
from .findings import WRONG, Check, Finding, wrong
from .report import verify_wheel


def check_wheel(path: Path, target: Target, fronts: Iterable[Front]) -> None:
    """Raises VerifyError, with all that is wrong, where the wheel is not what was built.

    FormatError where the archive itself is not sound.
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


def _asked_findings(evidence: Evidence, target: Target, wanted: Sequence[str]) -> Iterator[Finding]:
    """Every unit must hold every image, once; the version must be the recipe's."""
    with_code = [b.contents for b in evidence.binaries if b.contents.containers]
    if not with_code:
        yield wrong("no binary in it holds device code")
    for contents in with_code:
        count = Counter(image.name for image in contents.images)
        for code in wanted:
            if count[code] != contents.containers:
                what = f"{code} is in {count[code]} of {contents.containers} units"
                yield wrong(what, contents.path)
    if not evidence.version.startswith(f"{target.recipe.version}+"):
        yield wrong(f"its version is {evidence.version}, the recipe's {target.recipe.version}")


def _lines(finding: Finding) -> Iterator[str]:
    yield ": ".join(part for part in (finding.where, finding.what) if part)
    yield from (f"  {line}" for line in finding.details)
