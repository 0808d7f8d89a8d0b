"""Unpacks the packages of MSVC and of a Windows SDK into one folder, which `msvc` describes.

    NAME.vsix              of Visual Studio; what it installs lies in Contents/
    NAME.A.B.C.D.nupkg     of NuGet: Microsoft.Windows.SDK.CPP, whose c/ is a Windows SDK, and
                           Microsoft.Windows.SDK.CPP.x64, whose c/ is that SDK's Lib/A.B.C.0

Both are zips with percent-encoded names (OPC: ECMA-376, part 2). Names must be such that Windows
takes them for files, and Windows does not tell capitals: the same packages make the same folder
everywhere.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import unquote

from ..errors import ToolchainError
from .archives import DAMAGE, MOST_TIMES, SPARE, check_members, is_damage, untold, write_member
from .msvc import VCVARS, check_complete, write_vcvars

VISUAL_STUDIO, NUGET = ".vsix", ".nupkg"
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
    names = _Names()
    names.add(VCVARS.split("/"))
    done = 0
    for package in packages:
        with _reading(package), package.open("rb") as stream:
            check_members(stream, _MOST_MEMBERS)
            with zipfile.ZipFile(stream) as archive:
                for size in _unpack_one(archive, package, home, names):
                    done += size
                    advance(done)
    write_vcvars(home)
    check_complete(home)


def _unpack_one(
    archive: zipfile.ZipFile, package: Path, home: Path, names: _Names
) -> Iterator[int]:
    """The bytes of the package that each member took."""
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
            target = home / names.add(parts)
            with archive.open(member) as content:
                if not target.exists():
                    left -= write_member(target, content, False, left)
                elif target.as_posix() in own or not _same(target, content):
                    name = "/".join(parts)
                    raise ValueError(f"another file is called {name!r}, if capitals do not count")
            own.add(target.as_posix())
        yield member.compress_size


def _split(name: str) -> list[str]:
    """The names in a member's path. ValueError where Windows would not take them for names."""
    parts = name.split("/")
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


def _same(path: Path, content: IO[bytes]) -> bool:
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
