"""MSVC in the cache: unpacked once, for all toolchains that pin the same packages; and whether its
user has accepted Microsoft's terms, which is asked once for each cache.

    <cache>/msvc/<digest>/                      as `provision.msvc` describes it
    <cache>/msvc/<digest>/fatwheel-msvc.json    written last; says what it was made of
    <cache>/accepted-license                    there if the user has accepted them with an option

The digest covers the packages' pins. As a CUDA home (`cuda`), it is made under another name and
renamed when it is complete, and may be deleted while nothing builds. It is made on Linux, too,
where Wine runs its programs. That of an installed MSVC is made of links.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ..config.model import Msvc
from ..errors import ToolchainError, UsageError
from ..events import Emit, Progress
from ..provision.msvc import check_complete
from ..provision.payloads import unpack
from ..storage import files
from ..storage.workfolder import remove_tree
from .cuda import LABEL, reporter
from .fetch import fetch, place
from .installedmsvc import make_home

MARKER = "fatwheel-msvc.json"
OPTION = "--accept-msvc-license"
VARIABLE = "FATWHEEL_ACCEPT_MSVC_LICENSE"

_LAYOUT = 1  # of what this module makes; a new number makes every folder anew
# Bytes on disk per byte of a package, on the safe side: what is in it, and the package itself,
# which stays until all are unpacked.
_NEEDED = 1 + 7
_ACCEPTED = "accepted-license"
_ACCEPTED_TEXT = f"The user of this folder has accepted Microsoft's terms for MSVC with {OPTION}.\n"


@dataclass(frozen=True)
class UnpackedMsvc:
    """The folder that the packages of an MSVC make, or the links to an installed one."""

    msvc: Msvc
    cache: Path

    @property
    def name(self) -> str:
        """Stands for all that is in it."""
        text = json.dumps(self._description, sort_keys=True)
        # No more of it, because paths of headers are long, and Windows' end at 260 characters.
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def home(self) -> Path:
        return (self.cache / "msvc").resolve() / self.name

    @property
    def needed(self) -> int:
        """Bytes of disk that it takes to make it, as far as sizes are known."""
        return 0 if self.is_made() else sum(file.size for file in self.msvc.payloads) * _NEEDED

    @property
    def _description(self) -> dict[str, object]:
        pins = sorted(f"{file.name} {file.version} {file.sha256}" for file in self.msvc.payloads)
        installed = self.msvc.installed
        own = [f"{one.name} {one.sha256}" for one in installed.files] if installed else []
        links = [[name, str(folder)] for name, folder in installed.links] if installed else []
        more = {"installed": own, "links": links} if installed else {}
        return {"layout": _LAYOUT, "packages": pins, **more}

    def is_made(self) -> bool:
        """Whether it is there and looks sound."""
        try:
            described = json.loads((self.home / MARKER).read_text(encoding="utf-8"))
            check_complete(self.home)
        except (OSError, ValueError, ToolchainError):
            return False
        return bool(described == self._description)

    def make(self, emit: Emit, toolchain: str = "") -> None:
        """Fetch the packages and unpack them, or link to what is installed; only while being
        `unpack.alone`.

        toolchain: as for `fetch`. Emits Progress over the bytes of the packages. Deletes them in
        the end.

        Raises UsageError where Microsoft's terms are not accepted, ToolchainError for packages that
        make no MSVC, OSError, and what `fetch` raises. Nothing half-made is left then, but whole
        packages stay.
        """
        check_accepted(self.msvc, self.cache)
        downloads = self.cache / "downloads"
        paths = fetch(self.msvc.payloads, downloads, emit, toolchain=toolchain)
        self.home.parent.mkdir(exist_ok=True)
        part = self.home.with_name(f".{secrets.token_hex(8)}.part")
        try:
            size = sum(path.stat().st_size for path in paths)
            if self.msvc.installed:
                make_home(self.msvc.installed, part)
                check_complete(part)
            else:
                unpack(paths, part, reporter(size, emit))
                emit(Progress(LABEL, size, size))
            (part / MARKER).write_text(json.dumps(self._description, indent=1), encoding="utf-8")
            if sys.platform != "win32":  # the name promises that all is there, as of a CUDA home
                os.sync()
            remove_tree(self.home)  # a damaged one
            files.replace(part, self.home)
        finally:
            remove_tree(part)
        for file in self.msvc.payloads:
            shutil.rmtree(place(file, downloads).parent, ignore_errors=True)


# -- Microsoft's terms -----------------------------------------------------------------------------


def accept(cache: Path) -> None:
    """Remember that the user accepts the terms. Raises OSError."""
    (cache / _ACCEPTED).write_text(_ACCEPTED_TEXT, encoding="utf-8")


def is_accepted(cache: Path) -> bool:
    """Whether the user has accepted the terms, here or for this run."""
    return os.environ.get(VARIABLE) == "1" or (cache / _ACCEPTED).is_file()


def check_accepted(msvc: Msvc | None, cache: Path) -> None:
    """Raise UsageError, which says where the terms stand, unless the user has accepted them.

    msvc: None for a toolchain that has another compiler. Who installed one has accepted them.
    """
    if msvc and not msvc.installed and not is_accepted(cache):
        raise UsageError(
            "MSVC is fetched from Microsoft only once you have accepted Microsoft's terms",
            where=f"MSVC {msvc.toolset} of Visual Studio {msvc.visual_studio}",
            details=[f"the terms: {msvc.license}"],
            hint=f"read them; {OPTION} accepts them for all builds to come, {VARIABLE}=1 for one",
        )
