"""Where everything lives that can be made again: downloads, environments, the store."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from .errors import StoreError

VARIABLE = "FATWHEEL_CACHE"


def cache_folder() -> Path:
    """The chosen folder; made if it is missing.

    Raises StoreError where it cannot be made or written, or has a name that builds cannot use.
    """
    folder = chosen_folder()
    mistake = mistake_in(folder)
    if mistake:
        raise _unusable(folder, mistake)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise _unusable(folder, "no permission to write there")
    return folder.resolve()


def chosen_folder() -> Path:
    """FATWHEEL_CACHE, or else the user's cache directory. It need not exist."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("fatwheel"))


def mistake_in(folder: Path) -> str:
    """Why projects' own builds would stumble over the folder's path; else ''.

    torch splits the compiler's path at spaces, PATH is split at colons; that of a Windows drive
    is none of them.
    """
    path = folder.resolve()
    if re.search(r"[\s:]", str(path)[len(path.drive) :]):
        return "builds cannot cope with a space or a colon in its path"
    return ""


def _unusable(folder: Path, reason: str) -> StoreError:
    return StoreError(
        f"the cache folder cannot be used: {reason}",
        where=str(folder),
        hint=f"name another folder on a disk with space: {VARIABLE}=/path/to/folder",
    )
