"""A clean environment for one wheel: its Python, torch and what they need, and nothing else.

It is mostly hard links into <cache>/packages, and goes when it has been used. What runs in it is
the wheel's own code, with the user's rights: it does not see the user's packages, and is not locked
up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import files
from ..cache import VARIABLE
from ..errors import ToolchainError, VerifyError
from ..events import Emit, Progress
from ..provision.tools import run
from ..toolchain.interpreters import find_interpreter
from ..toolchain.packages import ensure_unpacked, folder_of
from ..toolchain.unpack import link_into, unpack
from .subject import Subject

LABEL = "install"
_DRIVER = "libcuda.so.1"
# Of the user's own variables only these are seen inside: what finds programs and the GPU.
_KEPT = ("PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


@dataclass(frozen=True)
class Clean:
    """An environment with one wheel installed.

    root: the folder that goes. python: its interpreter; version: `3.11.7`. empty: a folder to run
    in, with nothing in it. variables: all that a child process gets.
    """

    root: Path
    python: Path
    version: str
    empty: Path
    variables: Mapping[str, str]


@contextmanager
def clean_environment(subject: Subject, work: Path, cache: Path, emit: Emit) -> Iterator[Clean]:
    """Install a wheel below `work`, an empty folder on the cache's file system.

    Emits Progress over bytes. Raises ToolchainError (no such Python), VerifyError where the wheel
    cannot be installed, StoreError, and what `fetch` raises.
    """
    interpreter = find_interpreter(subject.python)
    ensure_unpacked(subject.packages, cache, emit)
    root = work / "clean"
    try:
        run([str(interpreter.executable), "-I", "-m", "venv", "--without-pip", str(root)])
        _install_packages(subject, root, cache, emit)
        _install_wheel(subject, root, work / "wheel")
        yield _described(root, work, interpreter.version)
    except OSError as error:
        raise files.disk_error(
            error, "make a clean environment", work, f"{VARIABLE}=FOLDER"
        ) from error


def _install_packages(subject: Subject, root: Path, cache: Path, emit: Emit) -> None:
    total, done = sum(package.size for package in subject.packages), 0
    for package in subject.packages:
        _link(subject, folder_of(package, cache), root, package.name)
        done += package.size
        emit(Progress(LABEL, done, total))


def _install_wheel(subject: Subject, root: Path, folder: Path) -> None:
    """The wheel itself, each file against RECORD."""
    try:
        unpack(subject.wheel, folder, lambda count: None)
        _link(subject, folder, root, "wheel")
    except ToolchainError as error:
        raise VerifyError(
            "the wheel cannot be installed",
            where=subject.wheel.name,
            details=[error.what, *error.details],
        ) from error


def _link(subject: Subject, folder: Path, root: Path, name: str) -> None:
    site = str(root / "lib" / f"python{subject.python}" / "site-packages")
    schemes = {
        "purelib": site,
        "platlib": site,
        "headers": str(root / "include" / "site" / name),
        "scripts": str(root / "bin"),
        "data": str(root),
    }
    link_into(folder, schemes, root / "bin" / "python")


def _described(root: Path, work: Path, version: str) -> Clean:
    empty, home, temporary = (work / name for name in ("empty", "home", "tmp"))
    for folder in (empty, home, temporary):
        folder.mkdir()
    variables = {name: os.environ[name] for name in _KEPT if name in os.environ}
    variables |= {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": os.pathsep.join(_driver_folders()),
        # The driver keeps what it compiled: here, and not among the user's own.
        "CUDA_CACHE_PATH": str(home / "jit"),
        "CUDA_CACHE_MAXSIZE": str(4 << 30),
    }
    return Clean(root, root / "bin" / "python", version, empty, variables)


def _driver_folders() -> list[str]:
    """Of LD_LIBRARY_PATH what has the GPU's driver; no other CUDA libraries are to be used."""
    named = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return [folder for folder in named if folder and Path(folder, _DRIVER).exists()]
