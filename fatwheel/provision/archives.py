"""Unpacks CUDA's archives into one folder that works as CUDA_HOME.

NVIDIA publishes each part as `NAME-OS-VERSION-archive.tar.xz` (Linux) or `.zip` (Windows), with one
folder of that name in it, which holds a LICENSE and folders such as bin, include and lib. The
folders are merged; the licences are kept apart, because all have the same name.
"""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import ToolchainError
from .mend import finish

LICENCES = "licences"


def merge(archives: Sequence[Path], folder: Path) -> None:
    """Unpack the archives into a new folder.

    Raises ToolchainError for an archive that is damaged or not made like that, and where two
    archives have the same file.
    """
    folder.mkdir(parents=True)
    for archive in archives:
        members = _zip_members if archive.suffix == ".zip" else _tar_members
        try:
            for name, content, executable in members(archive):
                _place(folder / _target(name, archive), content, executable)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError) as error:
            raise ToolchainError("this archive is damaged", where=archive.name) from error
        except (ValueError, FileExistsError) as error:
            raise ToolchainError(str(error), where=archive.name) from error


def _target(name: str, archive: Path) -> PurePosixPath:
    """Where a member belongs, without the archive's own folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ValueError(f"{name!r} would be written outside of the folder")
    top, *rest = path.parts
    if not rest or not archive.name.startswith(f"{top}."):
        raise ValueError(f"{name!r} does not lie in a folder with the archive's name")
    if len(rest) == 1:
        return PurePosixPath(LICENCES, f"{top}-{rest[0]}")
    return PurePosixPath(*rest)


def _place(target: Path, content: IO[bytes] | str, executable: bool) -> None:
    """Write a file, or make a link to where the text says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        target.symlink_to(content)
        return
    with target.open("xb") as out:
        shutil.copyfileobj(content, out, 1 << 20)
    finish(target, executable)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | str, bool]]:
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content, bool(member.mode & 0o100)
            elif member.issym():
                _check_link(member.name, member.linkname)
                yield member.name, member.linkname, False
            elif not member.isdir():
                raise ValueError(f"{member.name!r} is neither a file, a folder nor a link")


def _check_link(name: str, target: str) -> None:
    """A link must not leave the folder that the archive's own folder becomes."""
    depth = len(PurePosixPath(name).parts) - 2
    for part in PurePosixPath(target).parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or part == "/":
            raise ValueError(f"the link {name!r} leads to {target!r}, outside of the folder")


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | str, bool]]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            if not info.is_dir():
                with packed.open(info) as content:
                    yield info.filename, content, False
