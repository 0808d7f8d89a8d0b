"""Unpacks the packages of MSVC and of a Windows SDK into one folder, which `msvc` describes.

    NAME.vsix              of Visual Studio; what it installs lies in Contents/
    NAME.A.B.C.D.nupkg     of NuGet: Microsoft.Windows.SDK.CPP, whose c/ is a Windows SDK, and
                           Microsoft.Windows.SDK.CPP.x64, whose c/ is that SDK's Lib/A.B.C.0
    NAME.msi, HEX.cab      a Windows SDK as Microsoft's installers have it: see `msi`, `cabinet`

The first two are zips with percent-encoded names (OPC: ECMA-376, part 2). Names must be such that
Windows takes them for files, and Windows does not tell capitals: the same packages make the same
folder everywhere.
"""

from __future__ import annotations

import re
import stat
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
    is_damage,
    untold,
    write_member,
)
from .cabinet import Cabinet
from .msi import files_of
from .msvc import VCVARS, check_complete, write_vcvars

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
