"""MSVC in the cache: unpacked once, for all toolchains that pin the same packages.

    <cache>/msvc/<digest>/                      as `provision.msvc` describes it
    <cache>/msvc/<digest>/fatwheel-msvc.json    written last; says what it was made of

The digest covers the packages' pins. As a CUDA home (`cuda`), it is made under another name and
renamed when it is complete, and may be deleted while nothing builds. It is made on Linux, too,
where Wine runs its programs.
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
from ..errors import ToolchainError
from ..events import Emit, Progress
from ..provision.msvc import check_complete
from ..provision.payloads import unpack
from ..storage import files
from .cuda import LABEL, reporter
from .fetch import fetch, place
from .license import check_accepted

MARKER = "fatwheel-msvc.json"

_LAYOUT = 1  # of what this module makes; a new number makes every folder anew
# Bytes on disk per byte of a package, on the safe side: what is in it, and the package itself,
# which stays until all are unpacked.
_NEEDED = 1 + 7


@dataclass(frozen=True)
class UnpackedMsvc:
    """The folder that the packages of an MSVC make."""

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
        return {"layout": _LAYOUT, "packages": pins}

    def is_made(self) -> bool:
        """Whether it is there and looks sound."""
        try:
            described = json.loads((self.home / MARKER).read_text(encoding="utf-8"))
            check_complete(self.home)
        except (OSError, ValueError, ToolchainError):
            return False
        return bool(described == self._description)

    def make(self, emit: Emit, toolchain: str = "") -> None:
        """Fetch the packages and unpack them; only while being `unpack.alone`.

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
            unpack(paths, part, reporter(size, emit))
            emit(Progress(LABEL, size, size))
            (part / MARKER).write_text(json.dumps(self._description, indent=1), encoding="utf-8")
            if sys.platform != "win32":  # the name promises that all is there, as of a CUDA home
                os.sync()
            shutil.rmtree(self.home, ignore_errors=True)  # a damaged one
            files.replace(part, self.home)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for file in self.msvc.payloads:
            shutil.rmtree(place(file, downloads).parent, ignore_errors=True)
