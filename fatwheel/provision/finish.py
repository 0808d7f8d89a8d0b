"""The mode and the time of every file that is installed, whatever the umask and the clock say.

A header's time can end up in what nvcc makes of it (-lineinfo), so it must be the same on every
machine and in every image.
"""

from __future__ import annotations

import os
from pathlib import Path

MTIME = 1577836800  # 2020-01-01 00:00 UTC, in seconds


def finish(path: Path, executable: bool = False) -> None:
    """Give a written file its mode and its time."""
    path.chmod(0o755 if executable else 0o644)
    os.utime(path, (MTIME, MTIME))


def stamp(folder: Path) -> None:
    """Give everything below a folder that time; links themselves, not what they point to.

    What has it already is not touched: in an image that would copy the file into a new layer.
    """
    follow = os.utime not in os.supports_follow_symlinks  # Windows cannot do otherwise
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.lstat().st_mtime != MTIME:
                os.utime(path, (MTIME, MTIME), follow_symlinks=follow)
