"""Makes the environment of a toolchain for Windows: a CPython of its own, with torch and CUDA's
compiler in it.

    <cache>/envs/<digest>/python.exe, include, libs, Lib/site-packages, Scripts

The CPython is python.org's package for NuGet, a zip whose folder `tools` works where it lies
("Using Python on Windows", "The nuget.org packages"). So the environment is its own interpreter,
nothing of it is the machine's, and it is made on Linux as it is on Windows. Otherwise it is like
the environments of Linux (see `environment`).
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ..config.pinned import Download, Package
from ..config.toolchain import Toolchain
from ..errors import StoreError, ToolchainError
from ..events import Emit
from ..model import Environment
from ..provision.archives import DAMAGE, check_members, finish, is_damage
from ..provision.msvc import install_run_time, windows_path
from ..provision.tools import Run, check_nvcc, check_ptxas, check_torch
from ..storage.cache import VARIABLE
from .environment import Ingredients
from .fetch import check_locked, fetch
from .homes import UnpackedMsvc
from .interpreters import build_of, compiler_id, pins
from .unpack import (
    InstallScheme,
    alone,
    check_space,
    folder_of,
    link_packages,
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
# Where CUDA's programs for Linux lie in their packages.
_OF_LINUX = {"cicc": "nvidia/*/nvvm/bin/cicc", "ptxas": "nvidia/*/bin/ptxas"}


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
        own = () if self.is_installed() else (self.python,)
        msvc = () if self.msvc.is_made() else self.msvc.msvc.payloads
        packages = (*self.packages, *self.toolchain.device_packages)
        return [*own, *msvc, *archives, *missing(packages, self.cache)]

    def programs_of_linux(self) -> dict[str, Path]:
        """cicc and ptxas for Linux, where those make device code; unpacked by `fetch`.

        Raises ToolchainError where one is not there, or is another version than nvcc.
        """
        folders = [folder_of(one, self.cache) for one in self.toolchain.device_packages]
        found = {}
        for name, pattern in _OF_LINUX.items() if folders else ():
            places = [path for folder in folders for path in folder.glob(pattern)]
            if len(places) != 1:
                raise ToolchainError(
                    f"the packages with CUDA for Linux have {len(places)} {name}, not one",
                    where=self.toolchain.name,
                )
            found[name] = places[0].resolve()
        if found:
            check_ptxas(found["ptxas"], self.toolchain.nvcc)
        return found

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
            unpack_missing(self.toolchain.device_packages, self.cache, emit, self.toolchain.name)
            if not self.msvc.is_made():
                self.msvc.make(emit, self.toolchain.name)
            if self.cuda and not self.cuda.is_made():
                self._fetch(self.cuda.archives, emit)
            if not self.is_installed():
                unpack_missing(self.packages, self.cache, emit, self.toolchain.name)
                self._fetch([self.python], emit)

    def is_made(self) -> bool:
        """Whether all of it is there and looks sound."""
        beside = self.msvc.is_made() and (self.cuda is None or self.cuda.is_made())
        of_linux = not missing(self.toolchain.device_packages, self.cache)
        return beside and of_linux and self.is_installed()

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
        packages = (*self.packages, *self.toolchain.device_packages)
        check_locked((*pinned, *packages), self.toolchain.name)
        needed = self.msvc.needed + needed_for(missing(packages, self.cache))
        check_space(needed + (self.cuda.needed if self.cuda else 0), self.cache)

    def _fetch(self, files: Sequence[Download], emit: Emit) -> list[Path]:
        return fetch(files, self.cache / "downloads", emit, toolchain=self.toolchain.name)

    def _make(self, run: Run, emit: Emit) -> None:
        name = self.toolchain.name
        self._check()
        unpack_missing(self.toolchain.device_packages, self.cache, emit, name)
        if not self.msvc.is_made():
            self.msvc.make(emit, name)
        if self.cuda and not self.cuda.is_made():
            self.cuda.make(None, emit, name, run)
        if not self.is_installed():
            self._install(run, emit)

    def _install(self, run: Run, emit: Emit) -> None:
        unpack_missing(self.packages, self.cache, emit, self.toolchain.name)
        [archive] = self._fetch([self.python], emit)
        with self.made() as part:
            unpack_python(archive, part)
            new = self.environment(part)
            into = InstallScheme(
                python=self.root / "python.exe",
                site=new.site,
                headers=new.include,
                scripts=part / "Scripts",
                data=part,
            )
            link_packages(self.packages, self.cache, into, self.toolchain.platform, emit)
            install_run_time(self.msvc.root, part)
            check_nvcc(new.cuda_home, self.toolchain.nvcc, run)
            check_torch(new.python, self.build.torch, warm=True, run=run)


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
