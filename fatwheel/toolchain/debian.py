"""Where Debian's packages are: on the mirror that the user names, or that this machine's own apt
uses. Which package it is, its sha256 says."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..config.pinned import DebianFile, Download, Package
from ..errors import FetchError, UsageError
from .fetch import is_fetched

VARIABLE = "FATWHEEL_DEBIAN"
# Without a user, as it is shown; with nothing after its path, which those of files follow.
_LABEL = r"[A-Za-z0-9_-]{1,63}"
_MIRROR = re.compile(rf"https?://{_LABEL}(\.{_LABEL})*\.?(:\d{{1,5}})?(/+[\w.~%+-]+)*/*", re.ASCII)
_LINE = "$(ORIGIN) $(LABEL) $(REPO_URI)"
_PATIENCE = 60  # seconds


def on_mirror(files: Sequence[Package | Download], folder: Path) -> list[Package | Download]:
    """The same files; those of Debian that are not in the folder yet, with their URLs.

    Raises FetchError where no mirror is known, UsageError where what the user names is none.
    """
    absent = [one for one in files if isinstance(one, DebianFile) and not is_fetched(one, folder)]
    if not absent:
        return list(files)
    mirror = _mirror(absent).rstrip("/")
    urls = {one: f"{mirror}/{one.path}" for one in absent}
    return [
        replace(one, url=urls[one]) if isinstance(one, DebianFile) and one in urls else one
        for one in files
    ]


def _mirror(absent: Sequence[DebianFile]) -> str:
    if named := os.environ.get(VARIABLE, "").strip():
        if not _MIRROR.fullmatch(named):
            raise UsageError(
                f"{named!r:.120} is not a mirror of Debian",
                where=VARIABLE,
                hint=f"valid: {VARIABLE}=https://HOST/debian",
            )
        return named
    if used := _of_apt():
        return used
    raise FetchError(
        "no mirror of Debian is known",
        details=[one.filename for one in absent],
        hint=f"name a mirror of Debian: {VARIABLE}=https://HOST/debian. Or put the files into a "
        "folder, under any names: --find FOLDER",
    )


def _of_apt() -> str:
    """Where this machine's own apt gets Debian from; '' where it does not."""
    command = ["apt-get", "indextargets", "--format", _LINE, "Created-By: Packages"]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE,
            stdin=subprocess.DEVNULL, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = (line.split(" ") for line in said.splitlines())
    found = (words[2] for words in lines if words[:2] == ["Debian", "Debian"] and len(words) == 3)
    return next(filter(_MIRROR.fullmatch, found), "")
