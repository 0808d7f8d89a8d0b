"""The files of a source folder that lies beside a recipe: which belong to it, and their digest.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import NoReturn

from .errors import ConfigError

# What a build or an interpreter leaves behind; a folder `build` deeper down may be source.
_LEFTOVERS = ("__pycache__",)
_LEFTOVERS_AT_TOP = ("build", "dist", ".git")
_LEFTOVER_SUFFIX = ".egg-info"


def tree_files(folder: Path) -> tuple[PurePosixPath, ...]:
    """All files below `folder`, relative to it, sorted; without what builds leave behind.

    Raises ConfigError for symbolic links and special files, whose meaning would depend on the
    machine, and for folders that cannot be read.
    """
    files: list[PurePosixPath] = []
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        inside = PurePosixPath(Path(place).relative_to(folder).as_posix())
        is_top = Path(place) == folder
        folders[:] = [name for name in folders if not _is_leftover(name, is_top)]
        for name in folders + names:
            path = Path(place, name)
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ConfigError(
                    "a source folder may hold only files and folders, no links",
                    where=str(path),
                    hint="replace it with a copy of what it points to",
                )
        files += [inside / name for name in names]
    return tuple(sorted(files, key=str))


def tree_digest(folder: Path) -> str:
    """sha256 over the relative paths and contents of `tree_files(folder)`."""
    digest = hashlib.sha256()
    for path in tree_files(folder):
        try:
            content = Path(folder, path).read_bytes()
        except OSError as error:
            _unreadable(error)
        digest.update(hashlib.sha256(content).digest())
        digest.update(os.fsencode(str(path)) + b"\0")
    return digest.hexdigest()


def _is_leftover(name: str, is_top: bool) -> bool:
    return (
        name in _LEFTOVERS
        or name.endswith(_LEFTOVER_SUFFIX)
        or (is_top and name in _LEFTOVERS_AT_TOP)
    )


def _unreadable(error: OSError) -> NoReturn:
    raise ConfigError(
        f"cannot read the source folder: {error.strerror}", where=str(error.filename)
    ) from error
