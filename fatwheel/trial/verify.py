"""Runs everything that `invoke verify` was asked for: checks, signature, import and GPU.

The last two test a wheel on this machine, in a clean environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config.load import list_recipes, load_recipe
from ..config.recipe import Recipe
from ..config.toolchains import list_toolchains, load_toolchain
from ..doctor.facts import GpuFacts
from ..doctor.machine import ask_gpu
from ..errors import VerifyError
from ..events import Emit, Note, StepStarted
from ..provenance.checks import foreign, publishers
from ..provenance.lock import FILE as LOCK_FILE
from ..provenance.lock import BuildLock, read_lock
from ..shipped import recipe_folders, toolchain_folders
from ..storage.cache import cache_folder, work_folder
from ..verify.evidence import WRONG, Check, Evidence, Finding, note, warning
from ..verify.report import Report, verify_wheel
from ..wheels.archive import open_wheel
from ..wheels.metadata import named, top_modules
from ..wheels.name import parse_wheel_name
from . import environment, gpu
from .children import Trial
from .environment import Clean, clean_environment
from .gpu import load_all, take_out
from .subject import (
    TriedWheel,
    other_subjects,
    subject_of_installed,
    subject_of_lock,
    subject_of_toolchains,
    with_neighbours,
)

Beside = Mapping[Path, Evidence]  # other wheels that the one to be tried needs


@dataclass(frozen=True)
class Folders:
    """Where things are: folders of recipes and toolchains, the cache, and where to work.

    work: gives a new folder on the cache's file system, and removes it.
    """

    kernels: tuple[Path, ...]
    toolchains: tuple[Path, ...]
    cache: Path
    work: Callable[[], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Tried:
    """Checks "import" and "gpu", those that were asked for, and figures for the report."""

    checks: tuple[Check, ...]
    figures: dict[str, Any]


@dataclass(frozen=True)
class _Wheel:
    """A wheel, and how to test it.

    others: with what else, as it keeps to stable ABIs.
    """

    path: Path
    evidence: Evidence
    subject: TriedWheel
    modules: tuple[str, ...]
    lock: BuildLock | None
    others: tuple[TriedWheel, ...] = ()


def try_import(
    path: Path, evidence: Evidence, beside: Beside, places: Folders, emit: Emit
) -> Tried:
    """Install a wheel in a clean environment and import its modules; one that keeps to stable ABIs
    also in those of other Pythons and torches.

    beside: other wheels that it needs. Raises ToolchainError where this machine cannot do that,
    UsageError and ToolchainError where those do not go with it, VerifyError where a wheel cannot be
    installed, FormatError for a damaged lock, and what fetching raises.
    """
    wheel = _known(path, evidence, beside, places)
    with places.work() as work, _installed(wheel, work, places, emit) as clean:
        check, figures = _import(wheel, clean, emit)
    findings, others = list(check.findings), []
    for subject in wheel.others:
        other = replace(wheel, subject=subject)
        with places.work() as work, _installed(other, work, places, emit) as clean:
            check, found = _import(other, clean, emit)
        findings += check.findings
        others.append(found)
    more = {"others": others} if others else {}
    return Tried((Check("import", tuple(findings)),), {**figures, "gpu": None, **more})


def try_gpu(
    path: Path, evidence: Evidence, beside: Beside, places: Folders, facts: GpuFacts, emit: Emit
) -> Tried:
    """The same, and then run it on this machine's GPU. facts: what is known of that."""
    gpu.check_machine(facts)
    wheel = _known(path, evidence, beside, places)
    with places.work() as work, _installed(wheel, work, places, emit) as clean:
        imported, figures = _import(wheel, clean, emit)
        ran, gpu_figures = _gpu(wheel, clean, work, places, facts.driver, emit)
    return Tried((imported, ran), {**figures, "gpu": gpu_figures})


def _installed(
    wheel: _Wheel, work: Path, places: Folders, emit: Emit
) -> AbstractContextManager[Clean]:
    emit(StepStarted("clean environment", wheel.subject.origin))
    return clean_environment(wheel.subject, work, places.cache, emit)


def _import(wheel: _Wheel, clean: Clean, emit: Emit) -> tuple[Check, dict[str, Any]]:
    emit(StepStarted("import", ", ".join(wheel.modules)))
    trial = environment.try_modules(clean, wheel.modules)
    findings = tuple(environment.import_findings(wheel.subject, clean, trial))
    return Check("import", findings), _figures(wheel.subject, clean, trial)


def _gpu(
    wheel: _Wheel, clean: Clean, work: Path, places: Folders, driver: str, emit: Emit
) -> tuple[Check, dict[str, Any]]:
    emit(StepStarted("load on the GPU"))
    loading = load_all(clean, take_out(wheel.path, wheel.evidence, work))
    trials = gpu.try_modes(clean, wheel.modules)
    findings = list(gpu.gpu_findings(driver, loading, trials))
    figures = gpu.figures_of(driver, loading, trials)
    recipe = _recipe(wheel.lock, places.kernels)
    script = recipe.verify if recipe else None
    if script is None:
        findings += _no_script(wheel.lock, recipe)
        return Check("gpu", tuple(findings)), {**figures, "verify": None}
    emit(StepStarted("verify.py", str(script)))
    checked = gpu.run_script(clean, script)
    findings += gpu.script_findings(checked)
    return Check("gpu", tuple(findings)), {**figures, "verify": gpu.script_figures(checked)}


def _recipe(lock: BuildLock | None, kernels: tuple[Path, ...]) -> Recipe | None:
    """The recipe here that the wheel says it was built by: what runs is never the wheel's word."""
    if lock is None or lock.recipe.name not in list_recipes(*kernels):
        return None
    recipe = load_recipe(lock.recipe.name, *kernels)
    return recipe if recipe.project == lock.recipe.project else None


def _no_script(lock: BuildLock | None, recipe: Recipe | None) -> Iterator[Finding]:
    if lock is None:
        yield note("it has no recipe: its results were not checked")
    elif recipe is None:
        yield warning(f"there is no recipe {lock.recipe.name} here: its results were not checked")
    else:
        yield warning(f"recipe {recipe.name} has no verify.py: its results were not checked")


def _known(path: Path, evidence: Evidence, beside: Beside, places: Folders) -> _Wheel:
    """How to test a wheel: by its lock, or by its METADATA."""
    wheel = _by_its_papers(path, evidence, places)
    if not beside:
        return wheel
    # Those are seldom for other Pythons and torches, too.
    return replace(wheel, subject=with_neighbours(wheel.subject, evidence, beside), others=())


def _by_its_papers(path: Path, evidence: Evidence, places: Folders) -> _Wheel:
    lock = _lock(path, evidence, places.kernels)
    toolchains = [
        load_toolchain(name, *places.toolchains) for name in list_toolchains(*places.toolchains)
    ]
    if lock is not None:
        lock = foreign(lock, publishers(places.kernels, places.toolchains))
        subject = (
            subject_of_installed(path, evidence, lock, toolchains)
            if lock.toolchain.installed
            else subject_of_lock(path, evidence, lock)
        )
        others = other_subjects(subject, evidence, toolchains, lock.recipe.runtime)
        return _Wheel(path, evidence, subject, lock.recipe.imports, lock, others)
    subject = subject_of_toolchains(path, evidence, toolchains)
    others = other_subjects(subject, evidence, toolchains, ())
    modules = _own_modules(path, evidence, subject)
    return _Wheel(path, evidence, subject, modules, None, others)


def _lock(path: Path, evidence: Evidence, kernels: tuple[Path, ...]) -> BuildLock | None:
    name = f"{evidence.dist_info}/{LOCK_FILE}"
    if name not in evidence.files:
        return None
    with open_wheel(path) as wheel:
        return read_lock(wheel.read(name), f"{path.name}, {LOCK_FILE}", *kernels)


def _own_modules(path: Path, evidence: Evidence, subject: TriedWheel) -> tuple[str, ...]:
    """Its modules; torch before them where it wants torch, as those who use it would import it."""
    name = f"{evidence.dist_info}/top_level.txt"
    listed = ""
    if name in evidence.files:
        with open_wheel(path) as wheel:
            listed = wheel.read(name).decode("utf-8", "replace")
    modules = top_modules(evidence.files.keys(), listed)
    return ("torch", *modules) if named(subject.requirements, "torch") and modules else modules


def _figures(subject: TriedWheel, clean: Clean, trial: Trial) -> dict[str, Any]:
    """For the report: what it was tried with, and how its modules were imported."""
    pinned = (one.version for one in subject.packages if one.name == "torch")
    installed = [(one.name, one.version) for one in subject.packages]
    installed += [(one.name, one.version) for one in subject.neighbours]
    return {
        "origin": subject.origin,
        "python": clean.version,
        "torch": trial.torch or next(pinned, ""),
        "packages": [{"name": name, "version": version} for name, version in installed],
        "import": environment.figures_of(trial),
    }


# Where one of these is wrong, nobody vouches for the bytes: nothing in the wheel is run then.
_VOUCHING = ("record", "provenance", "signature")

Try = Callable[[Path, Evidence, Beside, Emit], Tried]


@dataclass(frozen=True)
class Trials:
    """What to do besides the checks that only read a wheel.

    key: a public key, or None. importing: install and import it. gpu: also run it on the GPU.
    beside: other wheels to install, which it needs.
    """

    key: Path | None = None
    importing: bool = False
    gpu: bool = False
    beside: tuple[Path, ...] = ()


def verify(wheel: Path, asked: Trials, emit: Emit) -> Report:
    """Check a wheel.

    Raises UsageError (no such file or key), FormatError (no wheel), and of what was asked for:
    ToolchainError where this machine cannot try it, VerifyError where it cannot be installed, and
    what fetching its environment raises.
    """
    if asked.key:
        from ..provenance.signing import load_key
        from ..verify.provenance import signature_findings

        load_key(asked.key)  # a mistake in it is told before the wheel is read, which takes a while
    report = verify_wheel(wheel)
    if asked.key:
        signature = Check("signature", tuple(signature_findings(wheel, asked.key)))
        report = replace(report, checks=(*report.checks, signature))
    if asked.gpu:
        return _tried(wheel, report, "gpu", asked.beside, _on_gpu, emit)
    if asked.importing:
        return _tried(wheel, report, "import", asked.beside, _by_import, emit)
    return report


def _tried(
    wheel: Path, report: Report, name: str, others: Sequence[Path], attempt: Try, emit: Emit
) -> Report:
    doubtful = _doubts(report)
    if doubtful:
        why = (
            f"not tried, because these checks failed: {', '.join(doubtful)}; its code cannot "
            "be trusted"
        )
        return replace(report, checks=(*report.checks, Check(name, (warning(why),))))
    beside = {path: _neighbour(path) for path in others}
    names = ", ".join(path.name for path in (wheel, *beside))
    emit(Note(f"the code of {names} runs now: as you, with your files and your network"))
    tried = attempt(wheel, report.evidence, beside, emit)
    return replace(report, checks=(*report.checks, *tried.checks), runtime=tried.figures)


def _doubts(report: Report) -> list[str]:
    return [check for check in _VOUCHING if report.result_of(check) == WRONG]


def _neighbour(wheel: Path) -> Evidence:
    """What is in a wheel that another needs. VerifyError where nobody vouches for it, FormatError
    where its name is none that can be installed."""
    parse_wheel_name(wheel.name)
    report = verify_wheel(wheel)
    if doubtful := _doubts(report):
        raise VerifyError(
            f"its code cannot be trusted: these checks failed: {', '.join(doubtful)}",
            where=wheel.name,
        )
    return report.evidence


def _by_import(wheel: Path, evidence: Evidence, beside: Beside, emit: Emit) -> Tried:
    return try_import(wheel, evidence, beside, _places(), emit)


def _on_gpu(wheel: Path, evidence: Evidence, beside: Beside, emit: Emit) -> Tried:
    return try_gpu(wheel, evidence, beside, _places(), ask_gpu(), emit)


def _places() -> Folders:
    return Folders(recipe_folders(), toolchain_folders(), cache_folder(), work_folder)
