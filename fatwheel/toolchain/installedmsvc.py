"""The MSVC and the Windows SDK of this machine, in the place of those that a toolchain pins.

    vswhere.exe                  says where each Visual Studio is, as JSON (github.com/microsoft/
                                 vswhere, "Find VC"); every installer since 2017 brings it
    VC\\Tools\\MSVC\\14.44.35207     in that folder: the toolsets, of which there may be several
    Windows Kits\\10              the SDKs; the registry says where, as it tells CMake

Neither vcvarsall.bat nor any of the user's variables is asked. What is chosen gets a home like that
of an unpacked MSVC (`provision.msvc`), made of links: so compilers see the same short paths with
both, and the same cl makes the same objects.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config.parts import CudaRelease, MsvcRelease, release
from ..config.toolchain import InstalledFile, InstalledMsvc, LockedMsvc, MsvcTools, Toolchain
from ..errors import FormatError, ToolchainError, UsageError
from ..provision.msvc import (
    KIT,
    LIBRARIES,
    MADE_OF,
    PROGRAMS,
    REDIST,
    TOOLSETS,
    ask_version,
    write_vcvars,
)
from ..storage import files
from ..storage.documents import read_value
from ..worker.programs import show_at

OPTION, INSTALLED = "--msvc", "installed"
_ASKED = f"{OPTION} {INSTALLED}"

_VSWHERE = Path("Microsoft Visual Studio", "Installer", "vswhere.exe")
_ALL = ("-products", "*", "-format", "json", "-utf8", "-nologo")  # the Build Tools, too
_PATIENCE = 60.0  # seconds
_MOST = 1 << 20  # bytes of an answer; a Visual Studio takes some 3,000
_RELEASE = re.compile(r"\d{1,9}(\.\d{1,9}){1,3}")
_TOOLSET = re.compile(r"14\.\d{1,4}(\.\d{1,9}){1,2}")
_SDK = re.compile(r"10(\.\d{1,9}){3}")
_RUN_TIME = re.compile(r"Microsoft\.VC\d{3}\.CRT")
_HEADERS = ("ucrt", "shared", "um", "winrt")
_STL = Path("include", "yvals_core.h")
_LEAST_CUDA = re.compile(r"STL1002.{0,80}expected CUDA (\d{1,3}\.\d{1,3})", re.DOTALL)
_WORKLOAD = 'the workload "Desktop development with C++" in the Visual Studio Installer'
_WITHOUT = f"or leave out {OPTION}: MSVC is then fetched, and nothing is installed"


@dataclass(frozen=True)
class _Toolset:
    """A compiler of a Visual Studio. studio: its folder; release: as in `17.14.5`. folder: of the
    toolset, whose name is its version."""

    studio: Path
    release: str
    folder: Path

    @property
    def name(self) -> str:
        """`14.44`, as pinned ones are called."""
        return ".".join(self.folder.name.split(".")[:2])

    @property
    def cl(self) -> Path:
        return self.folder / PROGRAMS / "cl.exe"


@dataclass(frozen=True)
class _Kit:
    """A Windows SDK. folder: the one that has all of them."""

    folder: Path
    version: str


def with_installed(
    toolchain: Toolchain, cuda: CudaRelease, pinned: MsvcRelease | None
) -> Toolchain:
    """A toolchain for Windows with the newest MSVC of this machine that its CUDA takes.

    pinned: what the CUDA takes of what is pinned, to be named where nothing here fits. Raises
    UsageError on another system, ToolchainError where there is none, or no Windows SDK.
    """
    if sys.platform != "win32":
        raise UsageError(
            "there is a Visual Studio on Windows only",
            where=_ASKED,
            hint=f"leave out {OPTION}: MSVC is then fetched, and Wine runs it",
        )
    programs = Path(os.environ.get("PROGRAMFILES(X86)", r"C:\Program Files (x86)"))
    msvc = find_installed_msvc(cuda, pinned, programs, [*_registered_kits(), programs / KIT])
    return use(toolchain, msvc)


def use(toolchain: Toolchain, msvc: LockedMsvc) -> Toolchain:
    """A toolchain with another MSVC, which its digest then covers."""
    assert toolchain.msvc
    assert msvc.installed
    own = [msvc.visual_studio, msvc.cl, msvc.installed.sdk, *map(vars, msvc.installed.files)]
    digest = hashlib.sha256(json.dumps([toolchain.digest, *own]).encode()).hexdigest()
    return replace(toolchain, digest=digest, msvc=replace(msvc, license=toolchain.msvc.license))


def find_installed_msvc(
    cuda: CudaRelease, pinned: MsvcRelease | None, programs: Path, kits: Sequence[Path]
) -> LockedMsvc:
    """The newest MSVC that a CUDA takes, with the newest Windows SDK.

    programs: the folder for 32-bit programs, which has Visual Studio's installer. kits: folders in
    which SDKs may be, the first that has one counts. Raises ToolchainError.
    """
    toolset = _choose(list(_toolsets(programs / _VSWHERE)), cuda, pinned)
    kit = _newest_kit(kits)
    version = ask_version([str(toolset.cl)])[1]
    return LockedMsvc(
        visual_studio=toolset.release,
        cl=version,
        toolset=toolset.name,
        license="",  # accepted by who installed it
        payloads=(),
        installed=InstalledMsvc(
            sdk=kit.version,
            files=tuple(_files(toolset)),
            folder=toolset.studio,
            links=tuple(_links(toolset, kit)),
        ),
    )


def make_home(installed: InstalledMsvc, home: Path) -> None:
    """Make the home of an MSVC of this machine, of links. Raises OSError."""
    for name, folder in installed.links:
        link = home / name
        link.parent.mkdir(parents=True, exist_ok=True)
        show_at(link, folder)
    write_vcvars(home)


# -- Visual Studio ---------------------------------------------------------------------------------


def _toolsets(vswhere: Path) -> Iterator[_Toolset]:
    """Those of every Visual Studio that make programs for x64. Raises ToolchainError where there
    are none."""
    studios = list(_studios(vswhere))
    found = False
    for studio, release_ in studios:
        for folder in _versions(studio / TOOLSETS, _TOOLSET):
            toolset = _Toolset(studio, release_, folder)
            if all(path.is_file() for path in _made_of(toolset)):
                found = True
                yield toolset
    if not found:
        raise ToolchainError(
            "no Visual Studio is installed here"
            if not studios
            else "no Visual Studio here has a C++ compiler for x64",
            where=_ASKED,
            details=[str(studio) for studio, _ in studios] or [f"{vswhere} lists none"],
            hint=f"install {_WORKLOAD}; {_WITHOUT}",
        )


def _studios(vswhere: Path) -> Iterator[tuple[Path, str]]:
    """The folder and the release of each."""
    if not vswhere.is_file():
        raise ToolchainError(
            "no Visual Studio is installed here",
            where=_ASKED,
            details=[f"there is no {vswhere}"],
            hint=f"install {_WORKLOAD}; {_WITHOUT}",
        )
    for one in _answer(vswhere):
        folder, catalog = one.get("installationPath"), one.get("catalog")
        shown = catalog.get("productDisplayVersion") if isinstance(catalog, dict) else None
        numbers = [_RELEASE.match(str(text)) for text in (shown, one.get("installationVersion"))]
        known = next((match[0] for match in numbers if match), None)
        if isinstance(folder, str) and "\0" not in folder and known:
            yield Path(folder), known


def _answer(vswhere: Path) -> list[Any]:
    try:
        done = subprocess.run(
            [str(vswhere), *_ALL], input=b"", capture_output=True, timeout=_PATIENCE, check=True
        )
        found = read_value(done.stdout, vswhere.name, _MOST)
    except (OSError, subprocess.SubprocessError, FormatError) as error:
        why = error.what if isinstance(error, FormatError) else str(error)
        raise ToolchainError(
            "Visual Studio's installer does not say what is installed",
            where=str(vswhere),
            details=[why],
            hint=f"repair it; {_WITHOUT}",
        ) from error
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _choose(
    toolsets: Sequence[_Toolset], cuda: CudaRelease, pinned: MsvcRelease | None
) -> _Toolset:
    """The newest that nvcc takes."""
    newest = sorted(toolsets, key=lambda one: release(one.folder.name), reverse=True)
    refusals = {one: _refusal(one, cuda) for one in newest}
    fitting = next((one for one in newest if not refusals[one]), None)
    if fitting is not None:
        return fitting
    install = f"MSVC {pinned.toolset} under Individual components" if pinned else "an older one"
    raise ToolchainError(
        f"the nvcc of CUDA {cuda.minor} takes no MSVC that is installed here",
        where=_ASKED,
        details=[f"MSVC {one.folder.name}, {one.studio}: {why}" for one, why in refusals.items()],
        hint=f"install {install}, in the Visual Studio Installer; or name another CUDA; {_WITHOUT}",
    )


def _refusal(toolset: _Toolset, cuda: CudaRelease) -> str:
    """Why a CUDA refuses a toolset, or ''. nvcc's own headers do, and the toolset's."""
    tools = MsvcTools(toolset.release, "", toolset.name, "")
    if outside := cuda.refusal_of(tools):
        return outside
    try:
        text = (toolset.folder / _STL).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"it has no {_STL.name}"
    least = _LEAST_CUDA.search(text)
    if least and release(cuda.version) < release(least[1]):
        return f"its own library needs CUDA {least[1]} or newer"
    return ""


def _made_of(toolset: _Toolset) -> Iterator[Path]:
    """What decides which code is made."""
    yield from (toolset.folder / PROGRAMS / name for name in MADE_OF)
    yield from (toolset.folder / "lib" / "x64" / name for name in LIBRARIES)


def _files(toolset: _Toolset) -> Iterator[InstalledFile]:
    for path in _made_of(toolset):
        try:
            with path.open("rb") as stream:
                yield InstalledFile(path.name, files.copy(stream, None)[0])
        except OSError as error:
            raise ToolchainError(f"cannot be read: {error.strerror}", where=str(path)) from error


# -- the Windows SDK -------------------------------------------------------------------------------


def _newest_kit(kits: Sequence[Path]) -> _Kit:
    for folder in kits:
        for include in _versions(folder / "Include", _SDK):
            parts = [
                *(include / name for name in _HEADERS),
                *(folder / "Lib" / include.name / name / "x64" for name in ("ucrt", "um")),
                folder / "bin" / include.name / "x64",
            ]
            if all(part.is_dir() for part in parts):
                return _Kit(folder, include.name)
    raise ToolchainError(
        "no Windows SDK is installed here, or none is whole",
        where=_ASKED,
        details=[f"looked in {folder}" for folder in dict.fromkeys(kits)],
        hint=f"install a Windows 11 SDK with {_WORKLOAD}; {_WITHOUT}",
    )


def _registered_kits() -> list[Path]:
    """Where the registry says that SDKs are."""
    kits: list[Path] = []
    if sys.platform == "win32":
        import winreg

        key = r"SOFTWARE\Microsoft\Windows Kits\Installed Roots"
        for view in (winreg.KEY_WOW64_32KEY, winreg.KEY_WOW64_64KEY):
            try:
                with winreg.OpenKey(
                    winreg.HKEY_LOCAL_MACHINE, key, access=winreg.KEY_READ | view
                ) as roots:
                    found, _ = winreg.QueryValueEx(roots, "KitsRoot10")
            except OSError:
                continue
            if isinstance(found, str):
                kits.append(Path(found))
    return kits


# -- both ------------------------------------------------------------------------------------------


def _versions(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The folders in a folder that are named after a version, the newest first."""
    try:
        found = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    except OSError:
        return []
    return sorted(found, key=lambda path: release(path.name), reverse=True)


def _links(toolset: _Toolset, kit: _Kit) -> Iterator[tuple[str, Path]]:
    yield f"{TOOLSETS}/{toolset.folder.name}", toolset.folder
    for version in _versions(toolset.studio / REDIST, _TOOLSET):
        folders = sorted((version / "x64").glob("Microsoft.VC*.CRT"))
        if folders and _RUN_TIME.fullmatch(folders[-1].name):
            yield f"{REDIST}/{version.name}/x64/{folders[-1].name}", folders[-1]
            break
    else:
        raise ToolchainError(
            "this Visual Studio has no run-time libraries for x64",
            where=str(toolset.studio / REDIST),
            hint=f"install {_WORKLOAD}; {_WITHOUT}",
        )
    for name in ("Include", "Lib", "bin"):
        yield f"{KIT}/{name}/{kit.version}", kit.folder / name / kit.version
