"""What the logs of a build are called, and how long they are kept."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path

_LONGEST = 100  # characters: a shard is called after all its fronts, and by a number first
_KEPT = 50  # builds whose logs are kept


def shard_purpose(name: str) -> str:
    """What the worker of a shard is called in logs, labels and plans."""
    return f"shard {name}"


def log_name(purpose: str) -> str:
    """A purpose as the name of a file on any system: `shard-1-compute_80.log`."""
    return re.sub(r"[^\w.+-]+", "-", purpose)[:_LONGEST] + ".log"


def new_logs(parent: Path, name: str) -> Path:
    """A folder for the logs of a new build; the oldest ones go. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    old = sorted(parent.iterdir(), key=lambda folder: folder.lstat().st_mtime)
    for folder in old[: max(0, len(old) + 1 - _KEPT)]:
        shutil.rmtree(folder, ignore_errors=True)
    folder = parent / f"{name}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)  # compilers quote sources
    return folder
