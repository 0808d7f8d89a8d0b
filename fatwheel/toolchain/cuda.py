"""CUDA that comes as archives: merged once into the cache, for all Pythons and torches.

    <cache>/cuda/<digest>/                      works as CUDA_HOME
    <cache>/cuda/<digest>/fatwheel-cuda.json    written last; says what it was made of

The digest covers the archives' pins. As an environment, a CUDA home is made under another name and
renamed when it has passed its checks, and may be deleted while nothing builds.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..config.model import Download
from ..events import Emit, Progress
from ..provision.archives import check_complete, lacking, merge
from ..provision.compilers import HostCompiler, Run, check_nvcc, run
from ..provision.mend import mend_home
from ..storage import files
from .fetch import fetch, place

LABEL = "unpack"
MARKER = "fatwheel-cuda.json"

_LAYOUT = 1  # of what this module makes; a new number makes every CUDA home anew
# Bytes on disk per byte of an archive, with some to spare (measured on compilers: 3.7): what is in
# it, and the archive itself, which stays until all are merged.
_NEEDED = 1 + 4
_STEP = 4 << 20  # bytes between two reports


@dataclass(frozen=True)
class MergedCuda:
    """The CUDA home that archives make; nvcc: the version that it must have (`12.3.107`)."""

    archives: tuple[Download, ...]
    nvcc: str
    cache: Path

    @property
    def name(self) -> str:
        """Stands for all that is in it."""
        text = json.dumps(self._description, sort_keys=True)
        # Whole, because where the real path of a system header is shorter than the one by which
        # compilers see it (`worker.view`), gcc puts the real one into texts and objects.
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def home(self) -> Path:
        # Resolved, because compilers are shown it by links, and a cache may be made of links.
        return (self.cache / "cuda").resolve() / self.name

    @property
    def needed(self) -> int:
        """Bytes of disk that it takes to make it, as far as sizes are known."""
        return 0 if self.is_made() else sum(file.size for file in self.archives) * _NEEDED

    @property
    def _description(self) -> dict[str, object]:
        pins = sorted(f"{file.name} {file.version} {file.sha256}" for file in self.archives)
        return {"layout": _LAYOUT, "archives": pins}

    def is_made(self) -> bool:
        """Whether it is there and looks sound."""
        try:
            described = json.loads((self.home / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(described == self._description and not lacking(self.home))

    def make(
        self,
        compiler: HostCompiler | None,
        emit: Emit,
        toolchain: str = "",
        run: Run = run,
    ) -> None:
        """Fetch the archives and merge them; only while being `unpack.alone`.

        compiler: the g++ that makes what archives for Linux lack; None where MSVC is the host
        compiler, which looks for nothing else. toolchain: as for `fetch`. run: runs its nvcc, where
        that is not for this system. Emits Progress over the
        bytes of the archives. Deletes them in the end.

        Raises ToolchainError for archives that do not make a CUDA of that version, OSError, and
        what `fetch` raises. Nothing half-made is left then, but whole archives stay.
        """
        downloads = self.cache / "downloads"
        paths = fetch(self.archives, downloads, emit, toolchain=toolchain)
        self.home.parent.mkdir(exist_ok=True)
        part = self.home.with_name(f".{secrets.token_hex(8)}.part")
        try:
            size = sum(path.stat().st_size for path in paths)
            merge(paths, part, reporter(size, emit))
            emit(Progress(LABEL, size, size))
            check_complete(part)
            if compiler:
                mend_home(part, compiler)
            check_nvcc(part, self.nvcc, run)
            (part / MARKER).write_text(json.dumps(self._description, indent=1), encoding="utf-8")
            if sys.platform != "win32":  # the name promises that all is there, as of an environment
                os.sync()
            shutil.rmtree(self.home, ignore_errors=True)  # a damaged one
            files.replace(part, self.home)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for file in self.archives:
            shutil.rmtree(place(file, downloads).parent, ignore_errors=True)


def reporter(total: int, emit: Emit) -> Callable[[int], None]:
    """Emits Progress over the bytes of archives, not too often."""
    shown = 0

    def advance(done: int) -> None:
        nonlocal shown
        if done - shown >= _STEP:
            emit(Progress(LABEL, done, total))
            shown = done

    return advance
