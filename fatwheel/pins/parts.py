"""Locks parts of toolchains: looks up releases of CUDA and torch, and Pythons for every torch.

What is new is written among the user's own parts, or into this checkout's; what is pinned and
published otherwise stays as it is.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from packaging.utils import canonicalize_name

from ..config.compose import PLATFORMS
from ..config.load import dotted
from ..config.mistakes import read_table
from ..config.parts import FOLDER, CudaRelease, MsvcRelease, PackageFiles, Parts, TorchRelease
from ..config.toolchains import load_parts_file, toolchain_file
from ..errors import ConfigError, UsageError
from ..events import Emit, StepFinished, StepStarted
from ..shipped import OWN_TOOLCHAINS, is_installed
from ..toolchain.index import Index
from ..toolchain.pipconfig import RefusedError, read_pip_config
from .check import check_msvcs, check_parts
from .compare import UNREACHABLE, Comparer, PinState
from .cuda import lock_cuda
from .lock import LockReport, comments_of, package_text, write
from .published import HostBuild
from .session import Outcome, Session, Work, versions
from .session import platforms as all_platforms
from .torch import lock_torch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HEADINGS = {
    "cuda": "# CUDA {}: what its nvcc takes, and the files that it comes as.\n",
    "torch": "# torch {}: its wheels, and what each needs.\n",
}

_KINDS: dict[str, type] = {"cuda": CudaRelease, "torch": TorchRelease, "packages": PackageFiles}
_SHOWN = 20  # mistakes of a part

# What words of --cuda, --torch, --python, --platform and --msvc may be.
_VALID = (
    (r"\d{1,4}\.\d{1,4}(\.\d{1,4})?", "a release; valid: as in 13.2, or 13.2.1"),
    (r"\d{1,4}\.\d{1,4}(\.\d{1,4})?", "a release; valid: as in 2.13, or 2.13.0"),
    (r"3\.\d{1,3}", "a Python; valid: as in 3.15"),
    ("|".join(PLATFORMS), f"a platform; valid: {', '.join(sorted(PLATFORMS))}"),
    (r"\d{1,4}\.\d{1,4}(\.\d{1,4})?", "a release; valid: as in 17.14, or 14.44"),
)

Action = Callable[[Work], Outcome]


@dataclass(frozen=True)
class PartsRequest:
    """Releases to look up, as `13.2` or `13.2.1`, and Pythons to add; platforms: () for all.

    msvcs: releases of Visual Studio or toolsets (`17.14`, `14.44`) whose packages to look up.
    """

    cudas: tuple[str, ...] = ()
    torches: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    msvcs: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        cuda: str | None,
        torch: str | None,
        python: str | None,
        platform: str | None,
        msvc: str | None = None,
    ) -> PartsRequest | None:
        """From options with words between commas; None without any of them.

        Raises UsageError, with every word that cannot be one.
        """
        texts = {
            "--cuda": cuda,
            "--torch": torch,
            "--python": python,
            "--platform": platform,
            "--msvc": msvc,
        }
        lists = {option: _words(text) for option, text in texts.items()}
        mistakes = [
            f"{option} {text}: {word!r} is not {valid}"
            for (option, text), (pattern, valid) in zip(texts.items(), _VALID, strict=True)
            for word in lists[option]
            if not re.fullmatch(pattern, word, re.ASCII)
        ]
        if mistakes:
            raise UsageError("this cannot be looked up", details=mistakes)
        if platform and not (cuda or torch or python):
            raise UsageError(
                "--platform says for what releases are looked up, and none is named",
                where="--platform",
                hint="add --cuda, --torch or --python",
            )
        if not any(lists.values()):
            return None
        cudas, torches, pythons, platforms, msvcs = lists.values()
        return cls(cudas, torches, pythons, tuple(PLATFORMS[word] for word in platforms), msvcs)


def lock_parts(
    request: PartsRequest,
    folders: Sequence[Path],
    cache: Path,
    downloads: Path,
    emit: Emit,
    *,
    write: bool,
) -> list[LockReport]:
    """Look up what is asked for: CUDA, torch, Pythons for every torch that there is, and where the
    packages of MSVC are.

    folders: of toolchains, the user's own first. cache: fatwheel's own. downloads: where fetched
    files are kept. Each part is written when it is complete, its packages first. Raises UsageError
    for what does not exist, and FetchError, ConfigError, ToolchainError where something cannot be
    done at all; what is wrong with a single pin is in the reports.
    """
    with closing(Index(read_pip_config())) as index:
        parts = Parts(*folders)
        msvcs = _msvcs(request.msvcs, parts)
        session = Session(index, cache, downloads, emit, write=write)
        reports = [
            _report(label, action, session, folders) for label, action in _steps(request, folders)
        ]
        comparer = Comparer(index, downloads if write else None, emit)
        return [*reports, *check_msvcs(parts, msvcs, comparer, emit)]


def lock_named(
    name: str,
    folders: Sequence[Path],
    cache: Path,
    downloads: Path,
    emit: Emit,
    *,
    write: bool,
    host: HostBuild | None = None,
) -> list[LockReport]:
    """Lock what a toolchain names whose file names parts: pin the files of pins that have none yet,
    and compare all of its parts (`check_parts`, which has the arguments and the errors)."""
    with closing(Index(read_pip_config())) as index:
        session = Session(index, cache, downloads, emit, write=write)
        report = _pinned(name, Work(session, Parts(*folders)), folders)
    if report is not None and not report.written:
        return [report]  # of parts that are not complete nothing can be made
    checked = check_parts(folders, cache, downloads, emit, write=write, toolchain=name, host=host)
    return [*([report] if report else ()), *checked]


def _pinned(name: str, work: Work, folders: Sequence[Path]) -> LockReport | None:
    """What was found out of pins without a file; None where there are no such pins."""
    file = load_parts_file(toolchain_file(name, *folders), work.parts)
    refused: dict[str, PinState] = {}
    for choice in file.parts.torch:
        pins = (*file.parts.tools, *file.parts.packages, *choice.packages)
        for python in choice.pythons:
            for package, version in versions(pins, python).items():
                try:
                    work.pins.need(canonicalize_name(package), version, python, file.platform)
                except RefusedError as error:
                    pin = f"{package}=={version}"
                    refused[pin] = PinState((), pin, UNREACHABLE, {}, {}, str(error))
    found = [*(one for each in work.pins.findings.values() for one in each), *refused.values()]
    if not found:
        return None
    target, texts = _target(folders), _packages(work)
    written = work.session.write and not refused and _write(texts, target, folders)
    return LockReport(f"packages of {name}", target / FOLDER / "packages", written, tuple(found))


def _msvcs(words: Sequence[str], parts: Parts) -> list[MsvcRelease]:
    """Those that are asked for. Raises UsageError where there is none of a release."""
    found = []
    for word in words:
        named = [
            one
            for one in parts.msvcs
            if one.toolset == word or f"{one.visual_studio}.".startswith(f"{word}.")
        ]
        if not named:
            known = (f"{one.toolset} (Visual Studio {one.visual_studio})" for one in parts.msvcs)
            raise UsageError(
                f"there is no MSVC {word}",
                where="--msvc",
                details=[f"known: {', '.join(known)}"],
                hint=f"add a file for it to toolchains/{FOLDER}/msvc: docs/toolchains.md",
            )
        found += named
    return found


def _words(text: str | None) -> tuple[str, ...]:
    """The words between commas, each once."""
    return (
        tuple(dict.fromkeys(word.strip() for word in text.split(","))) if text is not None else ()
    )


def _steps(request: PartsRequest, folders: Sequence[Path]) -> Iterator[tuple[str, Action]]:
    platforms = request.platforms or tuple(all_platforms())
    for word in request.cudas:
        yield f"cuda {word}", partial(lock_cuda, word, platforms)
    torches = request.torches
    if request.pythons and not torches:
        torches = tuple(one.version for one in Parts(*folders).torches)
    for word in torches:
        yield f"torch {word}", partial(lock_torch, word, request.pythons, platforms)


def _report(label: str, action: Action, session: Session, folders: Sequence[Path]) -> LockReport:
    started = time.monotonic()
    session.emit(StepStarted("lock", label))
    work = Work(session, Parts(*folders))
    outcome = action(work)
    target = _target(folders)
    written = outcome.text is not None and _write(
        [*_packages(work), (outcome.name, outcome.text)], target, folders
    )
    session.emit(StepFinished("lock", time.monotonic() - started, label))
    findings = (
        *outcome.findings,
        *(finding for each in work.pins.findings.values() for finding in each),
    )
    file = target / FOLDER / f"{outcome.name}.toml"
    return LockReport(outcome.name.replace("/", " "), file, written, findings)


def _target(folders: Sequence[Path]) -> Path:
    """Where new parts are written."""
    return next((one for one in folders if not is_installed(one)), OWN_TOOLCHAINS)


def _packages(work: Work) -> list[tuple[str, str]]:
    """The parts of packages that have new files, with their texts."""
    return [(f"packages/{name}", package_text(files)) for name, files in work.pins.changed()]


def _write(texts: Sequence[tuple[str, str]], target: Path, folders: Sequence[Path]) -> bool:
    """Whether any file changed."""
    for name, text in texts:
        _check(name, text)
    changed = False
    for name, text in texts:
        path = target / FOLDER / f"{name}.toml"
        changed |= write(path, text, _heading(name, folders))
    return changed


def _check(name: str, text: str) -> None:
    """Raise ConfigError for a part that could not be read again: publishers may say anything."""
    try:
        _, wrong = read_table(_KINDS[name.partition("/")[0]], tomllib.loads(text))
        details = [f"{dotted(key)}: {message}" for key, message in wrong]
    except tomllib.TOMLDecodeError as error:
        details = [str(error)]
    if details:
        raise ConfigError(
            "what is published makes no valid part, so nothing of it is written",
            where=f"{FOLDER}/{name}.toml",
            details=details[:_SHOWN],
        )


def _heading(name: str, folders: Sequence[Path]) -> str:
    """The comments of the part that a copy is made of; a line of its own for a new one."""
    for folder in folders:
        file = folder / FOLDER / f"{name}.toml"
        if file.is_file():
            return comments_of(file.read_text(encoding="utf-8"))
    kind, _, what = name.partition("/")
    return _HEADINGS.get(kind, "").format(what)
