"""The cache folder: downloads, environments and the store, all of which can be made again."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from ..errors import StoreError
from .permissions import gap_of

VARIABLE = "FATWHEEL_CACHE"
_ANOTHER = f"use another folder: {VARIABLE}=/path/to/folder"


def cache_folder() -> Path:
    """The chosen folder; made if it is missing, so that nobody else can open it.

    Raises StoreError where it cannot be made or written, has a name that builds cannot use, or
    is one into which every user of the machine can write.
    """
    folder = chosen_folder()
    mistake = mistake_in(folder)
    if mistake:
        raise _unusable(folder, mistake)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise _unusable(folder, "no permission to write there")
    others_in(folder)
    return folder.resolve()


def others_in(folder: Path) -> str:
    """Which other users can change what is built from a folder, and how to keep them out; else ''.

    Raises StoreError where that is every user of this machine.
    """
    gap = gap_of(folder) if folder.exists() else None
    if gap is None:
        return ""
    if gap.everybody and gap.folder == folder.resolve():
        raise StoreError(
            f"{gap.who} can write there, and so could run code as you",
            where=str(folder),
            hint=f"close it: {gap.mend}" if gap.mend else f"{_ANOTHER}, in a folder of your own",
        )
    mend = gap.mend or _ANOTHER
    return (
        f"{gap.who} can write to {gap.folder}, and so could change what you build. To prevent "
        f"this: {mend}"
    )


def chosen_folder() -> Path:
    """FATWHEEL_CACHE, or else the user's cache directory. It need not exist."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("fatwheel"))


def downloads_folder() -> Path:
    """Where fetched files are kept."""
    return cache_folder() / "downloads"


def mistake_in(folder: Path) -> str:
    """Why projects' own builds would stumble over the folder's path; else ''.

    torch splits the compiler's path at spaces, PATH is split at colons. On Windows, where names of
    users have spaces, builds see all of it by other paths (`worker.roots`).
    """
    if os.name != "nt" and re.search(r"[\s:]", str(folder.resolve())):
        return "its path must not contain a space or a colon"
    return ""


def _unusable(folder: Path, reason: str) -> StoreError:
    return StoreError(
        f"the cache folder cannot be used: {reason}",
        where=str(folder),
        hint=f"use a folder on a disk with free space: {VARIABLE}=/path/to/folder",
    )
