"""Makes the environment of a toolchain for Windows: a CPython of its own, with torch and CUDA's
compiler in it.

    <cache>/envs/<digest>/python.exe, include, libs, Lib/site-packages, Scripts

The CPython is python.org's package for NuGet, a zip whose folder `tools` works where it lies
("Using Python on Windows", "The nuget.org packages"). So the environment is its own interpreter,
nothing of it is the machine's, and it is made on Linux as it is on Windows. Otherwise it is like
the environments of Linux (see `environment`).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ..config.model import Download, Package, Toolchain
from ..errors import StoreError, ToolchainError
from ..events import Emit, Progress
from ..model import Environment
from ..provision.archives import DAMAGE, check_members, is_damage
from ..provision.compilers import Run, check_nvcc, check_torch
from ..provision.mend import finish
from ..provision.msvc import install_run_time, windows_path
from ..storage import files
from ..storage.cache import VARIABLE
from .environment import LABEL, MARKER, Ingredients
from .fetch import check_locked, fetch
from .interpreters import build_of, compiler_id, pins
from .msvc import UnpackedMsvc
from .unpack import (
    alone,
    check_space,
    folder_of,
    link_into,
    missing,
    needed_for,
    unpack_missing,
)

_LAYOUT = 1  # of what this module makes; a new number makes every environment anew
_TOOLS = "tools"  # the folder of a NuGet package that is the Python
_OWN = ("Lib", "site-packages")  # what it brings there would stand beside the pinned packages
_MOST_FILES = 20_000
_LONGEST_PATH = 259  # characters: CPython looks at its own path in this way, also in Wine
_MOST_BYTES = 1 << 30  # of one Python; they have 0.1 GB
_NEEDED = ("python.exe", "include/Python.h")


@dataclass(frozen=True)
class WindowsTools(Ingredients):
    """An environment for Windows; see `ensure`."""

    @property
    def python(self) -> Download:
        """The package of its CPython. Raises ToolchainError where the toolchain has none."""
        for one in self.toolchain.portable:
            if one.python == self.build.python:
                return one.download
        raise ToolchainError(
            f"toolchain {self.toolchain.name} has no Python {self.build.python} of its own",
            hint="pin its NuGet package under [[portable]]: docs/toolchains.md",
        )

    @property
    def cl(self) -> str:
        """What its C++ compiler must say (`19.38.33130`)."""
        return self.msvc.msvc.cl

    @property
    def msvc(self) -> UnpackedMsvc:
        """Its C++ compiler."""
        assert self.toolchain.msvc, "every toolchain for Windows has it"
        return UnpackedMsvc(self.toolchain.msvc, self.cache)

    @property
    def description(self) -> dict[str, object]:
        return {
            "layout": _LAYOUT,
            "packages": pins(self.packages),
            "python": [self.python.version, self.python.sha256],
            "msvc": self.msvc.name,
            **({"cuda": self.cuda.name} if self.cuda else {}),
        }

    def environment(self, root: Path) -> Environment:
        """The environment in `root`: the final one, a copy being made, or another view of it."""
        site = root.joinpath(*_OWN)
        return Environment(
            root=root,
            python=root / "python.exe",
            site=site,
            cuda_home=self.cuda_home(site),
            include=root / "include",
            python_version=self.python.version,
            torch=self.build.torch,
            compiler_id=compiler_id(self.toolchain, self.build),
        )

    @property
    def pinned_files(self) -> list[Package | Download]:
        """What has to be fetched before it can be made."""
        archives = self.cuda.archives if self.cuda and not self.cuda.is_made() else ()
        own = () if self._is_installed() else (self.python,)
        msvc = () if self.msvc.is_made() else self.msvc.msvc.payloads
        return [*own, *msvc, *archives, *missing(self.packages, self.cache)]

    def ensure(self, run: Run, emit: Emit) -> Environment:
        """The environment, made if need be. run: runs a program of Windows.

        Processes that want one at the same time wait for each other. Raises ToolchainError where
        the result does not work, StoreError (no space), and what `fetch` raises.
        """
        if not self.is_made():
            with alone(self.cache, emit):
                if not self.is_made():
                    self._make(run, emit)
        return self.environment(self.root)

    def fetch(self, emit: Emit) -> None:
        """Get all that needs no program of Windows. Raises as `ensure`."""
        with alone(self.cache, emit):
            if self.is_made():
                return
            self._check()
            if not self.msvc.is_made():
                self.msvc.make(emit, self.toolchain.name)
            if self.cuda and not self.cuda.is_made():
                self._fetch(self.cuda.archives, emit)
            if not self._is_installed():
                unpack_missing(self.packages, self.cache, emit, self.toolchain.name)
                self._fetch([self.python], emit)

    def is_made(self) -> bool:
        """Whether all of it is there and looks sound."""
        beside = self.msvc.is_made() and (self.cuda is None or self.cuda.is_made())
        return beside and self._is_installed()

    def _is_installed(self) -> bool:
        made = self.environment(self.root)
        try:
            described = json.loads((self.root / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        nvcc = self.cuda is not None or (made.cuda_home / "bin" / "nvcc.exe").exists()
        return bool(described == self.description and made.python.exists() and nvcc)

    def _check(self) -> None:
        """Raise ToolchainError where it is not pinned, StoreError where it has no space, or where
        programs of Windows could not start."""
        longest = len(windows_path(self.root / "python.exe"))
        if longest > _LONGEST_PATH:
            raise StoreError(
                f"the cache's path is too long: Python's would have {longest} characters, and "
                f"programs of Windows take {_LONGEST_PATH}",
                where=str(self.cache),
                hint=f"use a folder with a shorter path: {VARIABLE}=FOLDER",
            )
        pinned = (self.python, *self.msvc.msvc.payloads, *self.toolchain.cuda_files)
        check_locked((*pinned, *self.packages), self.toolchain.name)
        needed = self.msvc.needed + needed_for(missing(self.packages, self.cache))
        check_space(needed + (self.cuda.needed if self.cuda else 0), self.cache)

    def _fetch(self, files: Sequence[Download], emit: Emit) -> list[Path]:
        return fetch(files, self.cache / "downloads", emit, toolchain=self.toolchain.name)

    def _make(self, run: Run, emit: Emit) -> None:
        name = self.toolchain.name
        self._check()
        if not self.msvc.is_made():
            self.msvc.make(emit, name)
        if self.cuda and not self.cuda.is_made():
            self.cuda.make(None, emit, name, run)
        if not self._is_installed():
            self._install(run, emit)

    def _install(self, run: Run, emit: Emit) -> None:
        unpack_missing(self.packages, self.cache, emit, self.toolchain.name)
        [archive] = self._fetch([self.python], emit)
        part = self.root.with_name(f".{secrets.token_hex(8)}.part")
        try:
            unpack_python(archive, part)
            self._link_packages(part, emit)
            install_run_time(self.msvc.home, part)
            new = self.environment(part)
            check_nvcc(new.cuda_home, self.toolchain.nvcc, run)
            check_torch(new.python, self.build.torch, warm=True, run=run)
            (part / MARKER).write_text(json.dumps(self.description, indent=1), encoding="utf-8")
            if sys.platform != "win32":  # the name promises that all is there
                os.sync()
            shutil.rmtree(self.root, ignore_errors=True)  # a damaged one
            files.replace(part, self.root)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _link_packages(self, part: Path, emit: Emit) -> None:
        site = str(part.joinpath(*_OWN))
        total = sum(package.size for package in self.packages)
        done = 0
        for package in self.packages:
            schemes = {
                "purelib": site,
                "platlib": site,
                "headers": str(part / "include" / package.name),
                "scripts": str(part / "Scripts"),
                "data": str(part),
            }
            folder = folder_of(package, self.cache)
            link_into(folder, schemes, self.root / "python.exe", "win-amd64")
            done += package.size
            emit(Progress(LABEL, done, total))


def windows_tools(toolchain: Toolchain, python: str, torch: str, cache: Path) -> WindowsTools:
    """For one Python (`3.11`) and one torch. Raises UsageError where the toolchain has no such."""
    return WindowsTools(toolchain, build_of(toolchain, python, torch), cache)


def unpack_python(archive: Path, folder: Path) -> None:
    """Unpack the Python of a NuGet package into a new folder, without the packages that it brings.

    Raises ToolchainError for an archive that is damaged, or is no such package; OSError.
    """
    try:
        with archive.open("rb") as stream:
            check_members(stream, _MOST_FILES)
        with zipfile.ZipFile(archive) as packed:
            members = [one for one in packed.infolist() if not one.is_dir()]
            wanted = [(_inside(one.filename), one) for one in members]
            if sum(one.file_size for one in members) > _MOST_BYTES:
                raise ValueError("it is larger than any Python")
            folder.mkdir(parents=True)
            for inside, member in wanted:
                if inside is not None:
                    _write(packed, member, folder / inside)
    except (*DAMAGE, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ToolchainError("this archive is damaged", where=archive.name) from error
    except OSError as error:
        if not is_damage(error):
            raise
        raise ToolchainError("this archive is damaged", where=archive.name) from error
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ToolchainError(str(error), where=archive.name) from error
    absent = [name for name in _NEEDED if not (folder / name).is_file()]
    if absent:
        raise ToolchainError(
            "this is not a Python as NuGet packages have it",
            where=archive.name,
            details=[f"it has no {_TOOLS}/{name}" for name in absent],
        )


def _inside(name: str) -> PurePosixPath | None:
    """Where a member belongs in the environment; None where it does not. ValueError for a name
    that leads elsewhere. NuGet encodes names as those of URLs (Open Packaging Conventions)."""
    path = PurePosixPath(unquote(name))
    if path.is_absolute() or ".." in path.parts or set(str(path)) & {"\\", ":", "\0"}:
        raise ValueError(f"{name!r} would be written outside of the folder")
    if path.parts[:1] != (_TOOLS,) or path.parts[1:3] == _OWN:
        return None
    return path.relative_to(_TOOLS)


def _write(packed: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(member) as source, target.open("xb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    finish(target, executable=target.suffix in (".exe", ".dll", ".pyd"))
