"""The files of a source folder beside a recipe: which of them count, and their digest.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NoReturn

from ..errors import ConfigError

# What a build or an interpreter leaves behind; a folder `build` deeper down may be source.
_LEFTOVERS = ("__pycache__",)
_LEFTOVERS_AT_TOP = ("build", "dist", ".git")
_LEFTOVER_SUFFIX = ".egg-info"
# More than any source has; as for sdists.
MAX_FILES, MAX_BYTES, MAX_DEPTH = 200_000, 4 << 30, 64
MAX_PATCH = 4 << 20  # bytes
_STEP = 1 << 20


def tree_files(folder: Path) -> tuple[PurePosixPath, ...]:
    """All files below `folder`, relative to it, sorted; without what builds leave behind.

    Raises ConfigError for symbolic links and special files, whose meaning would depend on the
    machine, and for folders that cannot be read.
    """
    files: list[PurePosixPath] = []
    size = 0
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        inside = PurePosixPath(Path(place).relative_to(folder).as_posix())
        if len(inside.parts) > MAX_DEPTH:
            raise ConfigError(f"it is more than {MAX_DEPTH} folders deep", where=str(folder))
        is_top = Path(place) == folder
        folders[:] = [name for name in folders if not is_leftover(name, is_top)]
        for name in folders + names:
            path = Path(place, name)
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise _special(path)
        files += [inside / name for name in names]
        size += sum(os.lstat(os.path.join(place, name)).st_size for name in names)
        if len(files) > MAX_FILES or size > MAX_BYTES:
            raise ConfigError(
                f"a source folder may hold {MAX_FILES} files of 4 GiB in all", where=str(folder)
            )
    return tuple(sorted(files, key=str))


def tree_digest(folder: Path) -> str:
    """sha256 over the relative paths and contents of `tree_files(folder)`."""
    return digest_over((path, Path(folder, path)) for path in tree_files(folder))


def digest_over(files: Iterable[tuple[PurePosixPath, Path]]) -> str:
    """sha256 over files: how each is called in the tree, and what is in it."""
    digest = hashlib.sha256()
    for name, path in files:
        content = hashlib.sha256()
        with opened(path) as stream:
            while piece := stream.read(_STEP):
                content.update(piece)
        digest.update(content.digest())
        digest.update(os.fsencode(str(name)) + b"\0")
    return digest.hexdigest()


def read_patch(path: Path) -> bytes:
    """What is in a patch. ConfigError where it cannot be read or is too large."""
    with opened(path) as stream:
        data = stream.read(MAX_PATCH + 1)
    if len(data) > MAX_PATCH:
        raise ConfigError(f"a patch may have {MAX_PATCH} bytes", where=str(path))
    return data


def patch_digest(path: Path) -> str:
    """sha256 of a patch; as for `read_patch`."""
    return hashlib.sha256(read_patch(path)).hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of a source folder, to be read. ConfigError where it cannot be read, or became a
    link or pipe since it was looked at."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    # Neither is there on Windows. A pipe is not waited for.
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags)
    except OSError as error:
        _unreadable(error)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _special(path)
    with os.fdopen(handle, "rb") as stream:
        yield stream


def _special(path: Path) -> ConfigError:
    return ConfigError(
        "a source folder may hold only files and folders, no links",
        where=str(path),
        hint="replace it with a copy of what it points to",
    )


def is_leftover(name: str, is_top: bool) -> bool:
    """Whether a folder is one that builds leave behind."""
    return (
        name in _LEFTOVERS
        or name.endswith(_LEFTOVER_SUFFIX)
        or (is_top and name in _LEFTOVERS_AT_TOP)
    )


def _unreadable(error: OSError) -> NoReturn:
    raise ConfigError(
        f"cannot read the source folder: {error.strerror}", where=str(error.filename)
    ) from error
