"""MSVC without its installer: what lies where in the folder that its packages are unpacked to, and
the variables that its programs need. Neither the registry nor a script of Microsoft's is asked.

    VC/Tools/MSVC/14.38.33130/bin/Hostx64/x64/cl.exe    also include, lib/x64
    VC/Redist/MSVC/14.38.33135/x64/*/*.dll              the libraries that programs made by it load
    VC/Auxiliary/Build/vcvarsall.bat                    see VCVARS
    Windows Kits/10/Include/10.0.22621.0/ucrt           also shared, um, winrt
    Windows Kits/10/Lib/10.0.22621.0/ucrt/x64           also um/x64
    Windows Kits/10/bin/10.0.22621.0/x64/rc.exe

The folders are those of the packages and of an installed Visual Studio; the variables name those
that vcvars64.bat names.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from urllib.parse import unquote

from ..errors import ToolchainError
from .archives import (
    DAMAGE,
    MOST_TIMES,
    SPARE,
    Content,
    check_members,
    finish,
    is_damage,
    untold,
    write_member,
)
from .msi import Cabinet, files_of
from .tools import same

# nvcc.exe looks for it above cl.exe and stops where it is missing, though it is told not to run it.
VCVARS = "VC/Auxiliary/Build/vcvarsall.bat"
TOOLSETS = "VC/Tools/MSVC"
REDIST = "VC/Redist/MSVC"
KIT = "Windows Kits/10"
PROGRAMS = "bin/Hostx64/x64"  # of a toolset
_PARTS = ("cl.exe", "c1xx.dll", "c2.dll")  # the programs whose bytes decide what code is made
MADE_OF = (*_PARTS, "link.exe")
LIBRARIES = ("libcmt.lib", "msvcrt.lib")  # for /MT and /MD, which come in packages of their own
# An installed one says it in the language of its user: "Version 19.44.35207 für x64".
_BANNER = re.compile(r"^(?=.*\bx64\b).*?\b(\d+\.\d+\.\d+)\b.*$", re.MULTILINE)
_VCVARS_TEXT = "@rem Nothing: nvcc.exe wants this file to be here, and is told not to run it.\r\n"
_PATIENCE = 300  # seconds for cl to say its version; Wine makes its prefix in that time
# So that setuptools and torch use the compiler that these variables name, and look for no other.
_CHOSEN = {"DISTUTILS_USE_SDK": "1", "MSSdk": "1"}


@dataclass(frozen=True)
class ReadyMsvc:
    """cl.exe, a digest of what it is made of, and the variables without which it does not work."""

    path: Path
    id: str
    variables: dict[str, str]


def find_msvc(home: Path, version: str, runner: Sequence[str] = ()) -> ReadyMsvc:
    """The compiler in a folder that MSVC and a Windows SDK were unpacked to.

    version is what cl must say (`19.38.33130`). runner is what a program of Windows is run with,
    (`wine`,) on Linux; the variables are for programs of Windows there as well, with the paths by
    which Wine knows this machine's. Raises ToolchainError where a part is missing, or cl does not
    run or is another.
    """
    check_complete(home)
    path = inside(_programs(home), "cl.exe")
    banner = ask_version([*runner, str(path)])
    same("cl", version, banner[1])
    digest = hashlib.sha256(banner[0].strip().encode())
    for name, content in parts_of(home).items():
        digest.update(f"\n{name} {content}".encode())
    return ReadyMsvc(path, digest.hexdigest(), _variables(home))


def parts_of(home: Path) -> dict[str, str]:
    """The sha256 of each program whose bytes decide what code is made, by its name. Raises
    ToolchainError, OSError."""
    programs = _programs(home)
    return {
        name: hashlib.sha256(inside(programs, name).read_bytes()).hexdigest() for name in _PARTS
    }


def headers_of(home: Path) -> list[str]:
    """The files that cl finds by itself, by their paths from `home` on. Raises ToolchainError."""
    return sorted(
        path.relative_to(home).as_posix()
        for folder in _folders(home)["INCLUDE"]
        for path in folder.rglob("*")
        if path.is_file()
    )


def check_complete(home: Path) -> None:
    """Raise ToolchainError, with its path, where a folder or a program of MSVC is missing."""
    for folder in (folder for paths in _folders(home).values() for folder in paths):
        if not folder.is_dir():
            raise ToolchainError("the unpacked MSVC lacks a folder", where=str(folder))
    programs, libraries = _programs(home), _folders(home)["LIB"][0]
    for part in (
        home / VCVARS,
        *(inside(programs, name) for name in MADE_OF),
        *(inside(libraries, name) for name in LIBRARIES),
    ):
        if not part.is_file():
            raise ToolchainError("the unpacked MSVC lacks a file", where=str(part))
    _run_time(home)


def install_run_time(home: Path, folder: Path) -> None:
    """Copy the libraries that programs made by this MSVC load, such as msvcp140.dll, to a folder.

    Windows itself does not have them, and torch needs them: Python finds them beside python.exe.
    What is there already, as CPython's own vcruntime140.dll, stays: it may be in use.
    Raises ToolchainError where there are none.
    """
    for library in _run_time(home):
        if not (folder / library.name).exists():
            shutil.copyfile(library, folder / library.name)


def write_vcvars(home: Path) -> None:
    """Make the file that nvcc.exe wants to be there. Raises OSError."""
    script = home / VCVARS
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(_VCVARS_TEXT, encoding="ascii", newline="")
    finish(script, executable=False)


def windows_path(path: Path) -> str:
    """A path as programs of Windows know it: on Linux, that of Wine's drive for this machine's
    files."""
    return str(path) if os.name == "nt" else "Z:" + str(path.absolute()).replace("/", "\\")


def _folders(home: Path) -> dict[str, list[Path]]:
    """What the variables of vcvars64.bat name, by their names."""
    tools, kit = _only(home / TOOLSETS), home / KIT
    include = _only(inside(kit, "Include"))
    library = inside(kit, "Lib", include.name)
    return {
        "INCLUDE": [
            inside(tools, "include"),
            *(inside(include, name) for name in ("ucrt", "shared", "um", "winrt")),
        ],
        "LIB": [
            inside(tools, "lib", "x64"),
            inside(library, "ucrt", "x64"),
            inside(library, "um", "x64"),
        ],
        # link.exe calls rc.exe and mt.exe.
        "PATH": [_programs(home), inside(kit, "bin", include.name, "x64")],
    }


def _variables(home: Path) -> dict[str, str]:
    """What vcvars64.bat would set."""
    variables = {
        name: ";".join(windows_path(folder) for folder in paths)
        for name, paths in _folders(home).items()
    }
    system = os.environ.get("SYSTEMROOT", r"C:\Windows")
    variables["PATH"] += rf";{system}\System32;{system}"
    return {**variables, **_CHOSEN}


def _programs(home: Path) -> Path:
    return inside(_only(home / TOOLSETS), *PROGRAMS.split("/"))


def _run_time(home: Path) -> list[Path]:
    libraries = sorted(inside(_only(home / REDIST), "x64").glob("*/*.dll"))
    if not libraries:
        raise ToolchainError("the unpacked MSVC has no run-time libraries", where=str(home))
    return libraries


def inside(folder: Path, *names: str) -> Path:
    """What lies there under these names, however they are spelled: Windows does not tell capitals,
    and Microsoft's packages do not agree on them."""
    for name in names:
        found = folder / name
        if not found.exists() and folder.is_dir():
            same = (one for one in folder.iterdir() if one.name.lower() == name.lower())
            found = next(same, found)
        folder = found
    return folder


def _only(folder: Path) -> Path:
    """The one folder in a folder, which is named after a version."""
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if len(found) != 1:
        raise ToolchainError(
            "an unpacked MSVC has one version of each part",
            where=str(folder),
            details=sorted(path.name for path in found) or ["there is none here"],
        )
    return found[0]


def ask_version(command: Sequence[str]) -> re.Match[str]:
    """What cl says of itself, which it does on its standard error; group 1 is its version
    (`19.38.33130`). Raises ToolchainError where it does not."""
    try:
        answer = subprocess.run(
            command, input="", capture_output=True, text=True,
            errors="replace", timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except OSError as error:
        raise ToolchainError(f"cannot run {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{command[-1]} does not end") from error
    banner = _BANNER.search(answer.stderr)
    if banner is None:
        raise ToolchainError(
            f"{command[-1]} does not say what version it is",
            details=[*answer.stderr.splitlines(), *answer.stdout.splitlines()],
        )
    return banner


# -- unpacking its packages ------------------------------------------------------------------------

# Unpacks the packages of MSVC and of a Windows SDK into one folder, which `msvc` describes.
#
#     NAME.vsix              of Visual Studio; what it installs lies in Contents/
#     NAME.A.B.C.D.nupkg     of NuGet: Microsoft.Windows.SDK.CPP, whose c/ is a Windows SDK, and
#                            Microsoft.Windows.SDK.CPP.x64, whose c/ is that SDK's Lib/A.B.C.0
#     NAME.msi, HEX.cab      a Windows SDK as Microsoft's installers have it: see `msi`
#
# The first two are zips with percent-encoded names (OPC: ECMA-376, part 2). Names must be such that
# Windows takes them for files, and Windows does not tell capitals: the same packages make the same
# folder everywhere.


VISUAL_STUDIO, NUGET, INSTALLER, CABINET = KINDS = ".vsix", ".nupkg", ".msi", ".cab"
_MOST_MEMBERS = 100_000  # of one package; the largest, with an SDK's headers, has some 8,000
_MOST_NAME = 240  # characters of a member's path; longer ones do not fit into Windows' paths
_PIECE = 1 << 20  # bytes
# A colon would name a stream, and the first of these two is what paths are made of.
_NO_NAME = re.compile(r'[\\/\x00-\x1f<>:"|?*]|[. ]$')
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³]|con(in|out)\$) *(\..*)?", re.IGNORECASE)
_SDK = re.compile(r"\.(\d+\.\d+\.\d+)\.\d+\.nupkg")


def unpack(packages: Sequence[Path], home: Path, advance: Callable[[int], None] = untold) -> None:
    """Unpack the packages into a new folder, and check that nothing is missing.

    advance is told, again and again, how many of the packages' bytes have been read in all.

    Raises ToolchainError for a package that is damaged or not made like that, for two that do not
    agree on a file, and where they do not make an MSVC together; OSError. What is there then is of
    no use.
    """
    home.mkdir(parents=True)
    target = _Target(home, _Names())
    target.names.add(VCVARS.split("/"))
    cabinets = {path.name.lower(): path for path in packages if path.suffix == CABINET}
    done = 0
    for package in packages:
        if package.suffix == CABINET:  # read where the package is that it belongs to
            continue
        read = _read_installer if package.suffix == INSTALLER else _read_zip
        with _reading(package):
            for size in read(package, target, cabinets):
                done += size
                advance(done)
    write_vcvars(home)
    check_complete(home)


@dataclass(frozen=True)
class _Target:
    """The folder that all goes to, and what is there."""

    home: Path
    names: _Names

    def put(self, parts: list[str], content: Content, most: int, own: set[str]) -> int:
        """Write a file; the bytes that were written. One that is there must be the same, and none
        of `own`: those of the same package, which is told of this one, too."""
        target = self.home / self.names.add(parts)
        known = target.as_posix()
        if not target.exists():
            own.add(known)
            return write_member(target, content, False, most)
        if known in own or not _same(target, content):
            name = "/".join(parts)
            raise ValueError(f"another file is called {name!r}, if capitals do not count")
        own.add(known)
        return 0


def _read_zip(package: Path, target: _Target, cabinets: Mapping[str, Path]) -> Iterator[int]:
    """The bytes of the package that each member took."""
    with package.open("rb") as stream:
        check_members(stream, _MOST_MEMBERS)
        with zipfile.ZipFile(stream) as archive:
            left = MOST_TIMES * package.stat().st_size + SPARE
            place = _place_in_sdk if package.suffix == NUGET else _place_in_msvc
            own: set[str] = set()
            for member in archive.infolist():
                if member.filename.endswith("/"):
                    continue
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise ValueError(f"{member.filename!r} is a link")
                parts = place(_split(unquote(member.filename, errors="strict")), package.name)
                if parts is not None:
                    with archive.open(member) as content:
                        left -= target.put(parts, content, left, own)
                yield member.compress_size


def _read_installer(package: Path, target: _Target, cabinets: Mapping[str, Path]) -> Iterator[int]:
    """The bytes of the package, and of each of its cabinets that has something to unpack."""
    with package.open("rb") as stream:
        files = files_of(stream)
    yield package.stat().st_size
    wanted: dict[str, dict[str, list[str]]] = {}
    for one in files:
        parts = _place_of_installed(_checked(list(one.path)))
        if parts is not None:
            wanted.setdefault(one.cabinet, {})[one.key] = parts
    own: set[str] = set()
    for name, places in wanted.items():
        path = cabinets.get(name.lower())
        if path is None:
            raise ValueError(f"it needs the cabinet {name!r}, which is not among the packages")
        with _reading(path), path.open("rb") as stream:
            left = MOST_TIMES * path.stat().st_size + SPARE
            for key, pieces in groupby(_pieces(Cabinet(stream), places), itemgetter(0)):
                content = _Pieces(piece for _, piece in pieces)
                left -= target.put(places[key], content, left, own)
        yield path.stat().st_size


def _pieces(cabinet: Cabinet, places: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
    there = {one.name: one for one in cabinet.files}
    for key in places:
        if key not in there:
            raise ValueError(f"it has no {key!r}, which its package names")
    return cabinet.read({key: there[key] for key in places})


class _Pieces:
    """What comes in pieces, as a file is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._rest = pieces
        self._held = b""

    def read(self, count: int) -> bytes:
        while len(self._held) < count and (piece := next(self._rest, b"")):
            self._held += piece
        found, self._held = self._held[:count], self._held[count:]
        return found


def _split(name: str) -> list[str]:
    """The names in a member's path. ValueError where Windows would not take them for names."""
    return _checked(name.split("/"))


def _checked(parts: list[str]) -> list[str]:
    name = "/".join(parts)
    if len(name) > _MOST_NAME:
        raise ValueError(f"{name[:_MOST_NAME]!r}... is too long a name")
    if not all(
        part and not _NO_NAME.search(part) and not _DEVICE.fullmatch(part) for part in parts
    ):
        raise ValueError(f"{name!r} is no name that a file can have on Windows")
    return parts


def _place_in_msvc(parts: list[str], package: str) -> list[str] | None:
    """Where a member of a Visual Studio package belongs; None for what describes the package."""
    return parts[1:] if parts[0] == "Contents" and len(parts) > 1 else None


def _place_in_sdk(parts: list[str], package: str) -> list[str] | None:
    """Where a member of a NuGet package belongs; None for what builds on x64 do not use."""
    version = _SDK.search(package)
    if version is None:
        raise ValueError("its name does not end with a version of the Windows SDK, A.B.C.D")
    kit = ["Windows Kits", "10"]
    if parts[:2] == ["c", "Include"] or (parts[:2] == ["c", "bin"] and "x64" in parts[3:4]):
        return [*kit, *parts[1:]]
    if parts[0] == "c" and parts[1:3] in (["um", "x64"], ["ucrt", "x64"]):
        return [*kit, "Lib", f"{version[1]}.0", *parts[1:]]
    return None


def _place_of_installed(path: list[str]) -> list[str] | None:
    """Where what an installer has belongs; None for what builds on x64 do not use. Where its root
    is, and that of all SDKs in it, only an installation would tell."""
    low = [part.lower() for part in path]
    for start in range(len(low) - 2):
        if low[start : start + 2] == ["windows kits", "10"]:
            kind, inner = low[start + 2], low[start + 3 :]
            if (
                kind == "include"
                or (kind == "bin" and inner[1:2] == ["x64"])
                or (kind == "lib" and inner[1:3] in (["um", "x64"], ["ucrt", "x64"]))
            ):
                return ["Windows Kits", "10", *path[start + 2 :]]
    return None


class _Names:
    """The files and folders so far, as they are spelled for the first time."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._files: dict[str, str] = {}

    def add(self, parts: Sequence[str]) -> str:
        """The path of a file, perhaps of one that there is. ValueError where it is a folder."""
        key = path = ""
        for part in parts[:-1]:
            key += f"/{part.casefold()}"
            if key in self._files:
                raise ValueError(f"{'/'.join(parts)!r} would lie in a file")
            path = self._folders.setdefault(key, f"{path}/{part}" if path else part)
        key += f"/{parts[-1].casefold()}"
        if key in self._folders:
            raise ValueError(f"{'/'.join(parts)!r} is a folder, too")
        return self._files.setdefault(key, f"{path}/{parts[-1]}" if path else parts[-1])


def _same(path: Path, content: Content) -> bool:
    """Whether a file has just this content; no more of it is read than that."""
    with path.open("rb") as known:
        while piece := known.read(_PIECE):
            if content.read(len(piece)) != piece:
                return False
    return not content.read(1)


@contextmanager
def _reading(package: Path) -> Iterator[None]:
    """Turns what is wrong with a package into a ToolchainError."""
    try:
        yield
    except DAMAGE as error:
        raise ToolchainError("this package is damaged", where=package.name) from error
    except OSError as error:
        if not is_damage(error):
            raise
        raise ToolchainError("this package is damaged", where=package.name) from error
    except (ValueError, RuntimeError) as error:
        raise ToolchainError(str(error), where=package.name) from error
