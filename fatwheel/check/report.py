"""Checks an environment, and comes to a verdict: `fatwheel check`.

The result's shape is fixed by `schemas/check.schema.json`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import VerifyError
from .cures import NOTE, Cure, Symptom, decisive, in_order
from .environment import CheckedPython, Packages, Torch, ask, find_python, find_torch
from .importing import (
    Imported,
    absent,
    explained,
    import_all,
    import_findings,
    installed_findings,
    python_findings,
    requirement_findings,
    shadow_findings,
    windows_findings,
)
from .loader import Linking, link
from .missing import (
    library_findings,
    symbol_findings,
    torch_findings,
    twice_findings,
    version_findings,
)
from .subject import CheckedPackage, read_installed, read_wheel

_TORCH = "torch"


@dataclass(frozen=True)
class CheckRequest:
    """what: a name, a wheel's path or an index's URL; '' for the environment itself, by its torch.

    python: as `--python` names it, '' for the one that runs fatwheel. importing: whether to import
    for real, for at most `seconds`.
    """

    what: str = ""
    python: str = ""
    importing: bool = True
    seconds: float = 300.0


@dataclass(frozen=True)
class Diagnosis:
    """kind: 'installed', 'wheel', 'index' or 'environment'. title: what was checked."""

    kind: str
    title: str
    target: CheckedPython
    torch: Torch | None
    findings: tuple[Symptom, ...]
    imported: Imported | None = None

    @property
    def decisive(self) -> Symptom | None:
        return decisive(self.findings)

    @property
    def ok(self) -> bool:
        return self.decisive is None

    @property
    def verdict(self) -> str:
        """One sentence."""
        found = self.decisive
        if found:
            return f"{found.where}: {found.what}" if found.where else found.what
        if self.kind == "index":
            return next((f.what for f in self.findings if f.cure), "nothing is wrong")
        if self.imported and self.imported.succeeded:
            return f"nothing is wrong: `import {self.imported.main}` works"
        return "nothing that is wrong was found" + (
            "" if self.imported else "; nothing was imported"
        )

    @property
    def cure(self) -> Cure | None:
        found = self.decisive
        if found or self.kind != "index":
            return found.cure if found else None
        cures = [one.cure for one in self.findings if one.cure and one.severity == NOTE]
        return cures[0] if len(cures) == 1 else None

    def to_json(self) -> dict[str, Any]:
        found, target, torch = self.decisive, self.target, self.torch
        return {
            "kind": self.kind,
            "checked": self.title,
            "ok": self.ok,
            "verdict": {
                "cause": found.cause if found else None,
                "what": self.verdict,
                "cure": self.cure.to_json() if self.cure else None,
            },
            "environment": _environment(target, torch),
            "findings": [one.to_json() for one in in_order(self.findings)],
            "import": self.imported.to_json() if self.imported else None,
        }


def _environment(target: CheckedPython, torch: Torch | None) -> dict[str, Any]:
    driver = target.driver
    return {
        "python": str(target.executable),
        "title": target.title,
        "version": ".".join(map(str, target.version)),
        "tag": str(next(iter(target.tags))),
        "torch": {"version": torch.version, "cuda": torch.cuda or None} if torch else None,
        "driver": {
            "version": driver.version or None,
            "cuda": ".".join(map(str, driver.cuda)) if driver.cuda else None,
            "gpus": [{"name": gpu.name, "capability": gpu.capability} for gpu in driver.gpus],
            "trouble": driver.trouble or None,
        },
    }


def check(asked: CheckRequest) -> Diagnosis:
    """Check what was asked for.

    UsageError for a Python that is none, or no such file; FormatError for a wheel or an index that
    is none; FetchError for an index that does not answer.
    """
    python = find_python(asked.python) if asked.python else Path(sys.executable)
    target = ask(python)
    packages = Packages(target.path)
    torch = find_torch(target, packages)
    if "://" in asked.what:
        from .index import index_findings  # which takes a while to import

        found = index_findings(target, torch, asked.what)
        return Diagnosis("index", asked.what, target, torch, found)
    if _is_path(asked.what):
        site = target.site[0] if target.site else target.prefix
        subject = read_wheel(Path(asked.what), site)
        return _checked(asked, target, packages, torch, subject, ())
    return _check_installed(asked, target, packages, torch)


def _is_path(what: str) -> bool:
    return what.endswith(".whl") or os.sep in what or "/" in what


def _check_installed(
    asked: CheckRequest, target: CheckedPython, packages: Packages, torch: Torch | None
) -> Diagnosis:
    name = asked.what or _TORCH
    found = packages.find(name) or packages.bringing(name)
    if found is None:
        kind = "installed" if asked.what else "environment"
        return Diagnosis(kind, name, target, torch, (absent(target, packages, name),))
    subject = read_installed(found)
    findings = (
        *installed_findings(target, packages, found, subject),
        *shadow_findings(target, subject),
    )
    return _checked(asked, target, packages, torch, subject, findings)


def _checked(
    asked: CheckRequest,
    target: CheckedPython,
    packages: Packages,
    torch: Torch | None,
    subject: CheckedPackage,
    before: tuple[Symptom, ...],
) -> Diagnosis:
    # A library for another system is loaded by nobody here: the wheel's tags tell that.
    own = tuple(one for one in subject.libraries if one.is_for(target))
    subject = replace(subject, libraries=own)
    linking = link(target, packages, torch, subject)
    findings = (
        *before,
        *subject.findings,
        *python_findings(target, subject),
        *requirement_findings(target, packages, subject),
        *windows_findings(target, subject),
        *_of_libraries(linking),
        *_device(target, subject, torch),
    )
    imported = None
    if asked.importing and subject.kind == "installed":
        imported = import_all(target, subject, torch=linking.uses_torch, limit=asked.seconds)
        findings = (*explained(findings, imported), *import_findings(target, subject, imported))
    kind = subject.kind if asked.what else "environment"
    return Diagnosis(kind, subject.title, target, torch, findings, imported)


def _of_libraries(linking: Linking) -> Iterator[Symptom]:
    symbols = tuple(symbol_findings(linking))
    yield from symbols
    yield from torch_findings(linking, said=any(one.cause == "torch" for one in symbols))
    yield from library_findings(linking)
    yield from version_findings(linking)
    yield from twice_findings(linking)


def _device(
    target: CheckedPython, subject: CheckedPackage, torch: Torch | None
) -> Iterator[Symptom]:
    if not any(library.binary.containers for library in subject.libraries) and not torch:
        return
    from .device import device_findings  # it needs libraries that unpack images

    yield from device_findings(target, subject, torch)


def refusal(report: Diagnosis) -> VerifyError:
    """The error to end with where something is wrong; the report has the details."""
    return VerifyError(f"{report.title} does not work here")
