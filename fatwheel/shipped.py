"""Where recipes and toolchains lie: the user's own, and those that come with fatwheel.

In a checkout the latter lie at its top; in an installed package, in its folder `data`, where they
are never changed: what is written beside them goes into the user's own.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from .machine import processor_of

PACKAGE = Path(__file__).resolve().parent
_DATA = PACKAGE / "data"
_HOME = _DATA if _DATA.is_dir() else PACKAGE.parent

TEMPLATES = _HOME / "docker"
KERNELS = _HOME / "kernels"
TOOLCHAINS = _HOME / "toolchains"

# The user's own, in the current folder.
OWN_KERNELS = Path("kernels")
OWN_TOOLCHAINS = Path("toolchains")

# The toolchains that are used where none is named, by the system that they build for, and by its
# processor where that is not x86-64: a file's name, or that of a composed one.
DEFAULT_TOOLCHAINS = {
    "linux": "linux-cuda13.0",
    "linux-aarch64": "cuda13.0.2-linux-aarch64",
    "windows": "cuda13.0.2-win-amd64",
}


def code_digest() -> str:
    """Digest of fatwheel's own code: what an older fatwheel made is made again, and workers must
    have the same."""
    found = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        # Of its lines: a checkout on Windows ends them in another way.
        found.update(file.read_text(encoding="utf-8").encode() + b"\0")
    return found.hexdigest()


def default_toolchain(system: str) -> str:
    """The toolchain for a system, as `platform.system()` names it, in lower case, on this machine's
    processor."""
    names = (f"{system}-{processor_of(platform.machine())}", system, "linux")
    return next(DEFAULT_TOOLCHAINS[name] for name in names if name in DEFAULT_TOOLCHAINS)


def recipe_folders(own: Path | None = None) -> tuple[Path, ...]:
    """Where recipes are looked for, in this order: `own`, if there is one, ./kernels, and those
    that come with fatwheel."""
    return _existing(own, OWN_KERNELS, KERNELS)


def toolchain_folders() -> tuple[Path, ...]:
    """Where toolchains are looked for: ./toolchains, then those that come with fatwheel."""
    return _existing(OWN_TOOLCHAINS, TOOLCHAINS)


def is_installed(path: Path) -> bool:
    """Whether a file or folder is part of an installed fatwheel, and not the user's to change."""
    return path.resolve().is_relative_to(_DATA)


def _existing(*folders: Path | None) -> tuple[Path, ...]:
    found = [folder.resolve() for folder in folders if folder is not None and folder.is_dir()]
    return tuple(dict.fromkeys(found))
