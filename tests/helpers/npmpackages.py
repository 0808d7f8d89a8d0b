"""Packages of npm's registry, pinned by version and sha512."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from ..conftest import missing


def unpack(package: str, sha512: str, folder: Path, tool: Callable[[str], str]) -> Path:
    """The folder of a package, `NAME@VERSION`, after it was fetched into `folder`, with no package
    that it needs.

    sha512: in base64, as the registry's `dist.integrity` has it.
    """
    archive = folder / _npm(["pack", "--silent", package], folder, tool).split()[-1]
    assert base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() == sha512
    with tarfile.open(archive) as opened:
        opened.extractall(folder)
    return folder / "package"


def install(project: Path, folder: Path, tool: Callable[[str], str]) -> Path:
    """The node_modules of a project, after what its lock pins was fetched into `folder`; nothing of
    it runs then."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(project / name, folder)
    _npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], folder, tool)
    return folder / "node_modules"


def _npm(arguments: list[str], folder: Path, tool: Callable[[str], str]) -> str:
    done = subprocess.run(
        [tool("npm"), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        missing(f"npm {' '.join(arguments)}: {done.stderr}")
    return done.stdout
