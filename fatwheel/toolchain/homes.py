"""CUDA and MSVC in the cache: each is unpacked once, for all toolchains that pin the same files;
and whether the user has accepted Microsoft's terms, which is asked once for each cache.

    <cache>/cuda/<digest>/                      works as CUDA_HOME
    <cache>/msvc/<digest>/                      as `provision.msvc` describes it
    <cache>/KIND/<digest>/fatwheel-KIND.json    written last; says what it was made of
    <cache>/accepted-license                    there if the user has accepted them with an option

The digest covers the pins of CUDA's archives or MSVC's packages. As an environment, a home is made
under another name and renamed when it has passed its checks, and may be deleted while nothing
builds. MSVC's is made on Linux, too, where Wine runs its programs; that of an installed MSVC is
made of links.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..config.pinned import Download
from ..config.toolchain import LockedMsvc
from ..errors import ToolchainError, UsageError
from ..events import Emit, Progress
from ..provision import archives, msvc
from ..provision.archives import mend_home
from ..provision.msvc import unpack
from ..provision.tools import HostCompiler, Run, check_nvcc, run
from ..storage import files
from ..storage.cache import remove_tree
from .fetch import fetch, place
from .installedmsvc import make_home
from .interpreters import pins

LABEL = "unpack"
OPTION = "--accept-msvc-license"
VARIABLE = "FATWHEEL_ACCEPT_MSVC_LICENSE"

_LAYOUT = 1  # of what this module makes; a new number makes every home anew
_STEP = 4 << 20  # bytes between two reports
_ACCEPTED = "accepted-license"
_ACCEPTED_TEXT = f"The user of this folder has accepted Microsoft's terms for MSVC with {OPTION}.\n"

# Unpacks files into a folder, and says after how many bytes of them it is.
Unpack = Callable[[Sequence[Path], Path, Callable[[int], None]], object]


class CachedFolder(ABC):
    """A folder of the cache that is made once, and complete where it is there.

    Its name is a digest of all that decides what is in it, which the marker in it says too: a file
    that is written last. kind: the folder that it lies in. digits: of the digest.
    """

    kind: ClassVar[str]
    digits: ClassVar[int]
    marker: ClassVar[str]
    cache: Path

    @property
    @abstractmethod
    def description(self) -> dict[str, object]:
        """All that decides what is in it, as JSON."""

    @property
    def name(self) -> str:
        """Stands for all that is in it."""
        text = json.dumps(self.description, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[: self.digits]

    @property
    def root(self) -> Path:
        # Resolved, because the path ends up in scripts, compilers are shown it by links, and a
        # cache may be made of links.
        return (self.cache / self.kind).resolve() / self.name

    def is_described(self) -> bool:
        """Whether it is there, and by its marker what it should be."""
        try:
            described = json.loads((self.root / self.marker).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(described == self.description)

    @contextmanager
    def made(self) -> Iterator[Path]:
        """A name for a new folder, which takes its place when the block has ended well.

        The final name promises that all is there, after a power failure too.
        """
        self.root.parent.mkdir(exist_ok=True)
        part = self.root.with_name(f".{secrets.token_hex(8)}.part")
        try:
            yield part
            text = json.dumps(self.description, indent=1)
            (part / self.marker).write_text(text, encoding="utf-8")
            if sys.platform != "win32":
                os.sync()  # one for 20,000 files; what it writes has to be written anyway
            remove_tree(self.root)  # a damaged one
            files.replace(part, self.root)
        finally:
            remove_tree(part)


class _Home(CachedFolder):
    """A folder that pinned files make.

    needs: bytes on disk per byte of these files, on the safe side: what is in them, and the files
    themselves, which stay until all are unpacked.
    """

    needs: ClassVar[int]

    @property
    @abstractmethod
    def files(self) -> tuple[Download, ...]: ...

    @abstractmethod
    def check(self, home: Path) -> None:
        """Raise ToolchainError where something is missing in a folder."""

    @property
    def needed(self) -> int:
        """Bytes of disk that it takes to make it, as far as sizes are known."""
        return 0 if self.is_made() else sum(file.size for file in self.files) * self.needs

    def is_made(self) -> bool:
        """Whether it is there and looks sound."""
        try:
            self.check(self.root)
        except (OSError, ValueError, ToolchainError):
            return False
        return self.is_described()

    def _make(
        self, unpack: Unpack, finish: Callable[[Path], None], emit: Emit, toolchain: str
    ) -> None:
        downloads = self.cache / "downloads"
        paths = fetch(self.files, downloads, emit, toolchain=toolchain)
        size = sum(path.stat().st_size for path in paths)
        with self.made() as part:
            unpack(paths, part, _reporter(size, emit))
            if paths:
                emit(Progress(LABEL, size, size))
            self.check(part)
            finish(part)
        for file in self.files:
            shutil.rmtree(place(file, downloads).parent, ignore_errors=True)


def _reporter(total: int, emit: Emit) -> Callable[[int], None]:
    """Emits Progress over the bytes of files that are unpacked, not too often."""
    shown = 0

    def advance(done: int) -> None:
        nonlocal shown
        if done - shown >= _STEP:
            emit(Progress(LABEL, done, total))
            shown = done

    return advance


@dataclass(frozen=True)
class MergedCuda(_Home):
    """The CUDA home that archives make; nvcc: the version that it must have (`12.3.107`)."""

    archives: tuple[Download, ...]
    nvcc: str
    cache: Path

    kind, marker = "cuda", "fatwheel-cuda.json"
    needs = 1 + 4  # measured on compilers: 3.7
    # Whole, because where the real path of a system header is shorter than the one by which
    # compilers see it (`worker.view`), gcc puts the real one into texts and objects.
    digits = 64

    @property
    def files(self) -> tuple[Download, ...]:
        return self.archives

    @property
    def description(self) -> dict[str, object]:
        return {"layout": _LAYOUT, "archives": pins(self.archives)}

    def check(self, home: Path) -> None:
        archives.check_complete(home)

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
        that is not for this system. Emits Progress over the bytes of the archives. Deletes them in
        the end.

        Raises ToolchainError for archives that do not make a CUDA of that version, OSError, and
        what `fetch` raises. Nothing half-made is left then, but whole archives stay.
        """

        def finish(part: Path) -> None:
            if compiler:
                mend_home(part, compiler)
            check_nvcc(part, self.nvcc, run)

        self._make(archives.merge, finish, emit, toolchain)


@dataclass(frozen=True)
class UnpackedMsvc(_Home):
    """The folder that the packages of an MSVC make, or the links to an installed one."""

    msvc: LockedMsvc
    cache: Path

    kind, marker = "msvc", "fatwheel-msvc.json"
    needs = 1 + 7
    digits = 16  # no more, because paths of headers are long, and Windows' end at 260 characters

    @property
    def files(self) -> tuple[Download, ...]:
        return self.msvc.payloads

    @property
    def description(self) -> dict[str, object]:
        installed = self.msvc.installed
        own = [f"{one.name} {one.sha256}" for one in installed.files] if installed else []
        links = [[name, str(folder)] for name, folder in installed.links] if installed else []
        more = {"installed": own, "links": links} if installed else {}
        return {"layout": _LAYOUT, "packages": pins(self.files), **more}

    def check(self, home: Path) -> None:
        msvc.check_complete(home)

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
        installed = self.msvc.installed

        def link(_paths: Sequence[Path], part: Path, _advance: Any) -> None:
            assert installed
            make_home(installed, part)

        self._make(link if installed else unpack, lambda part: None, emit, toolchain)


# -- Microsoft's terms -----------------------------------------------------------------------------


def accept(cache: Path) -> None:
    """Remember that the user accepts the terms. Raises OSError."""
    (cache / _ACCEPTED).write_text(_ACCEPTED_TEXT, encoding="utf-8")


def is_accepted(cache: Path) -> bool:
    """Whether the user has accepted the terms, here or for this run."""
    return os.environ.get(VARIABLE) == "1" or (cache / _ACCEPTED).is_file()


def check_accepted(msvc: LockedMsvc | None, cache: Path) -> None:
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
