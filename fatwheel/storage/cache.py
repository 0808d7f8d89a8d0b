"""Where everything lives that can be made again: downloads, environments, the store."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from ..errors import StoreError
from .permissions import gap_of

VARIABLE = "FATWHEEL_CACHE"
_ANOTHER = f"name another folder, {VARIABLE}=/path/to/folder"


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
    """Who else can change what is built from a folder's content, and how to keep them out, or ''.

    Raises StoreError where that is every user of this machine.
    """
    gap = gap_of(folder) if folder.exists() else None
    if gap is None:
        return ""
    if gap.everybody and gap.folder == folder.resolve():
        raise StoreError(
            f"{gap.who} can write there, and so run code as you",
            where=str(folder),
            hint=f"close it: {gap.mend}" if gap.mend else f"{_ANOTHER}, in a folder of your own",
        )
    mend = gap.mend or _ANOTHER
    return f"{gap.who} can write to {gap.folder}, and so change what you build. To stop it: {mend}"


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
