"""Packages of npm's registry, pinned by version and sha512, with no package that they need."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from ..conftest import missing


def unpack(package: str, sha512: str, folder: Path, tool: Callable[[str], str]) -> Path:
    """The folder of a package, `NAME@VERSION`, after it was fetched into `folder`.

    sha512: in base64, as the registry's `dist.integrity` has it.
    """
    done = subprocess.run(
        [tool("npm"), "pack", "--silent", package],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        missing(f"cannot fetch {package}: {done.stderr}")
    archive = folder / done.stdout.split()[-1]
    assert base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() == sha512
    with tarfile.open(archive) as opened:
        opened.extractall(folder)
    return folder / "package"
