"""Locks toolchains: compares every pin with what is published, fills in what is not known yet.

A pin that differs from what is published is told and stays: a file that changes under its name
may be an attack.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FatwheelError, FetchError, HashMismatchError
from ..events import Emit, StepFinished, StepStarted
from ..load import load_toolchain
from ..model import Toolchain
from .compare import FILLED, MOVED, STATES, UNREACHABLE, Comparer, Finding
from .index import Index
from .lockfile import LockFile
from .pipconfig import read_pip_config


@dataclass(frozen=True)
class LockReport:
    """All findings of one toolchain; written: whether its file was changed."""

    toolchain: str
    file: Path
    written: bool
    findings: tuple[Finding, ...]

    def count(self) -> dict[str, int]:
        """How many findings there are of each state."""
        counted = Counter(finding.state for finding in self.findings)
        return {state: counted[state] for state in STATES}

    def to_json(self) -> dict[str, Any]:
        """As `invoke lock --json` prints it (lock.schema.json)."""
        return {
            "toolchain": self.toolchain,
            "file": str(self.file),
            "written": self.written,
            "count": self.count(),
            "pins": [finding.to_json() for finding in self.findings],
        }


def lock_toolchains(
    names: Sequence[str], folder: Path, downloads: Path, emit: Emit, *, write: bool
) -> list[LockReport]:
    """Check the toolchains `folder`/NAME.toml; fill in what is missing, if `write`.

    Files that have to be fetched stay in `downloads`, as `fetch` has them. Raises UsageError and
    ConfigError where a toolchain cannot be loaded, FetchError where pip's configuration is of no
    use; what is wrong with a single pin is in the report (see `refusal`).
    """
    loaded = [(load_toolchain(name, folder), LockFile(folder / f"{name}.toml")) for name in names]
    index = Index(read_pip_config())
    comparer = Comparer(index, downloads if write else None, emit)
    try:
        return [_lock(toolchain, file, comparer, emit) for toolchain, file in loaded]
    finally:
        index.close()


def refusal(reports: Sequence[LockReport]) -> FatwheelError | None:
    """What the command ends with where something moved or could not be reached."""
    findings = [finding for report in reports for finding in report.findings]
    moved = [finding.name for finding in findings if finding.state == MOVED]
    if moved:
        return HashMismatchError(
            "what is published is not what is pinned",
            details=moved,
            hint="the pins stay as they are; to take a new one, remove the old from the "
            "toolchain's file, once you know why it differs",
        )
    unreachable = [finding for finding in findings if finding.state == UNREACHABLE]
    if unreachable:
        return FetchError(
            "not everything could be asked for",
            details=[*dict.fromkeys(finding.note for finding in unreachable)],
            hint="check the network, and what pip is configured with: python -m pip config list",
        )
    return None


def _lock(toolchain: Toolchain, file: LockFile, comparer: Comparer, emit: Emit) -> LockReport:
    started = time.monotonic()
    emit(StepStarted("lock", toolchain.name))
    findings = []
    for finding in comparer.compare(toolchain):
        findings.append(finding)
        if finding.state == FILLED:
            # At once, because what was fetched to know it may have taken long.
            file.fill(finding.key, finding.new)
    emit(StepFinished("lock", time.monotonic() - started, toolchain.name))
    return LockReport(toolchain.name, file.path, file.written, tuple(findings))
