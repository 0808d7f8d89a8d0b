"""Runs everything that `invoke verify` was asked for: checks, signature, import and GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..doctor.machine import ask_gpu
from ..events import Emit, Note
from ..shipped import recipe_folders, toolchain_folders
from ..storage.cache import cache_folder
from ..storage.workfolder import work_folder
from ..verify.evidence import WRONG, Check, Evidence, warning
from ..verify.report import Report, verify_wheel
from .tried import Places, Tried, try_gpu, try_import

# Where one of these is wrong, nobody vouches for the bytes: nothing in the wheel is run then.
_VOUCHING = ("record", "provenance", "signature")

Try = Callable[[Path, Evidence, Emit], Tried]


@dataclass(frozen=True)
class Asked:
    """What to do besides the checks that only read a wheel.

    key: a public key, or None. importing: install and import it. gpu: also run it on the GPU.
    """

    key: Path | None = None
    importing: bool = False
    gpu: bool = False


def verify(wheel: Path, asked: Asked, emit: Emit) -> Report:
    """Check a wheel.

    Raises UsageError (no such file or key), FormatError (no wheel), and of what was asked for:
    ToolchainError where this machine cannot try it, VerifyError where it cannot be installed, and
    what fetching its environment raises.
    """
    if asked.key:
        from ..provenance.signing import load_key
        from ..verify.signature import signature_findings

        load_key(asked.key)  # a mistake in it is told before the wheel is read, which takes a while
    report = verify_wheel(wheel)
    if asked.key:
        signature = Check("signature", tuple(signature_findings(wheel, asked.key)))
        report = replace(report, checks=(*report.checks, signature))
    if asked.gpu:
        return _tried(wheel, report, "gpu", _on_gpu, emit)
    if asked.importing:
        return _tried(wheel, report, "import", _by_import, emit)
    return report


def _tried(wheel: Path, report: Report, name: str, attempt: Try, emit: Emit) -> Report:
    doubtful = [check for check in _VOUCHING if report.result_of(check) == WRONG]
    if doubtful:
        why = (
            f"not tried, because these checks failed: {', '.join(doubtful)}; its code cannot "
            "be trusted"
        )
        return replace(report, checks=(*report.checks, Check(name, (warning(why),))))
    emit(Note(f"the code of {wheel.name} runs now: as you, with your files and your network"))
    tried = attempt(wheel, report.evidence, emit)
    return replace(report, checks=(*report.checks, *tried.checks), runtime=tried.figures)


def _by_import(wheel: Path, evidence: Evidence, emit: Emit) -> Tried:
    return try_import(wheel, evidence, _places(), emit)


def _on_gpu(wheel: Path, evidence: Evidence, emit: Emit) -> Tried:
    return try_gpu(wheel, evidence, _places(), ask_gpu(), emit)


def _places() -> Places:
    return Places(recipe_folders(), toolchain_folders(), cache_folder(), work_folder)
