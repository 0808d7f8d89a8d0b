"""Unpacks wheels once, and installs them into environments by hard links."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import secrets
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.exceptions import InstallerError
from installer.records import RecordEntry, parse_record_file
from installer.sources import WheelContentElement, WheelFile, WheelSource
from installer.utils import Scheme

from ..config.pinned import Package
from ..errors import FormatError, StoreError, ToolchainError
from ..events import Emit, Note, Progress
from ..machine import WINDOWS
from ..provision.archives import finish
from ..storage import files
from ..storage.cache import VARIABLE
from ..wheels.zipreader import read_entries
from .fetch import fetch, place


@contextmanager
def one_at_a_time(folder: Path, others: str, emit: Emit) -> Iterator[None]:
    """Hold the lock in a folder that is there; emit what `others` do when that takes waiting."""
    note = Note(f"another build is {others}: waiting for it")
    with files.locked(folder / "lock", waiting=lambda: emit(note)):
        yield


# -- unpacking and installing ----------------------------------------------------------------------

# <packages>/<sha256>/    the members of one wheel as they lie in it, checked against RECORD
#
# So the four gigabytes that every Python's environment needs are on the disk once. Every file
# gets the same time, because a header's time can end up in what nvcc makes of it (-lineinfo).
# Formats: PEP 427 (wheel) and PEP 376 (RECORD), through the `installer` library.


LABEL, INSTALL = "unpack", "install"  # as progress is called
WORKERS = 4  # threads: reading, inflating, hashing and writing overlap
_CHUNK = 1 << 20
_TICK = 0.1  # seconds between two reports

Advance = Callable[[int], None]


def unpack_all(wheels: Mapping[Path, Path], emit: Emit) -> None:
    """Unpack each wheel into its folder, several at a time, and delete it when that is done.

    Emits Progress over the bytes written, from the calling thread only. On a failure or
    Ctrl-C, what is finished stays. Raises ToolchainError, OSError.
    """
    work = _Work(sum(unpacked_size(wheel) for wheel in wheels))
    largest_first = sorted(wheels.items(), key=lambda item: -item[0].stat().st_size)
    with ThreadPoolExecutor(WORKERS) as pool:
        pending = {pool.submit(_unpack_one, *item, work.advance) for item in largest_first}
        try:
            while pending:
                finished, pending = wait(pending, timeout=_TICK)
                for future in finished:
                    future.result()
                emit(Progress(LABEL, work.done, work.total))
        except BaseException:
            work.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


class _Work:
    """What the unpacking threads share: bytes done of a total, and a signal to stop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        if self.stop.is_set():
            raise CancelledError
        with self._lock:
            self.done += count


def _unpack_one(wheel: Path, folder: Path, advance: Advance) -> None:
    part = folder.with_name(f".{secrets.token_hex(8)}.part")
    unpack(wheel, part, advance)
    part.rename(folder)
    wheel.unlink()
    with suppress(OSError):  # the folder of a download has nothing else in it
        wheel.parent.rmdir()


def unpacked_size(wheel: Path) -> int:
    """Bytes that `unpack` will write. Raises ToolchainError if this is no wheel."""
    with _reading(wheel), wheel.open("rb") as stream:
        return sum(entry.size for entry in read_entries(stream))


def unpack(wheel: Path, folder: Path, advance: Advance) -> None:
    """Write the wheel's members into the new folder, checking each against RECORD on the way.

    advance is told the bytes written, from time to time; what it raises ends the work. On any
    failure nothing is left. Raises ToolchainError for a wheel that contradicts its RECORD, and
    OSError.
    """
    folder.mkdir()
    try:
        with _reading(wheel), WheelFile.open(wheel) as source:
            with wheel.open("rb") as archive:
                read_entries(archive)  # `installer` reads it with what Python has
            source.validate_record(validate_contents=False)
            for record, stream, executable in source.get_contents():
                _write(RecordEntry.from_elements(*record), stream, executable, folder, advance)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _reading:
    """Turns what goes wrong in reading a wheel into a ToolchainError."""

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (InstallerError, zipfile.BadZipFile, ValueError, FormatError)):
            issues = getattr(error, "issues", None) or [str(error)]
            raise ToolchainError(
                "this pinned wheel cannot be installed", where=self.wheel.name, details=issues
            ) from error


def _write(
    entry: RecordEntry, stream: BinaryIO, executable: bool, folder: Path, advance: Advance
) -> None:
    target = folder / _safe(entry.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.new(entry.hash_.name if entry.hash_ else "sha256")
    with target.open("xb") as out:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
            advance(len(chunk))
    if entry.hash_ and entry.hash_.value != _encoded(digest.digest()):
        raise ValueError(f"{entry.path} does not have the {entry.hash_.name} that RECORD says")
    finish(target, executable)


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"{name!r} would be written outside the package's folder")
    return path


def _encoded(digest: bytes) -> str:
    """As in RECORD: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_unpacked(folder: Path) -> bool:
    """Whether the folder has every file of its RECORD, each with its size."""
    try:
        source = UnpackedWheel(folder)
        return all(
            entry.size is None or (folder / entry.path).stat().st_size == entry.size
            for entry in source.entries()
        )
    except (OSError, ValueError, InstallerError):
        return False


class UnpackedWheel(WheelSource):
    """A folder made by `unpack`, as a source for the `installer` library."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = [path.name for path in folder.glob("*.dist-info")]
        if len(names) != 1:
            raise ValueError(f"{folder} has {len(names)} .dist-info folders")
        self._dist_info = names[0]
        distribution, _, version = names[0].removesuffix(".dist-info").partition("-")
        super().__init__(distribution, version)

    @property
    def dist_info_dir(self) -> str:
        return self._dist_info

    @property
    def dist_info_filenames(self) -> list[str]:
        base = self.folder / self._dist_info
        return [path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()]

    def read_dist_info(self, filename: str) -> str:
        return (self.folder / self._dist_info / filename).read_text(encoding="utf-8")

    def entries(self) -> Iterator[RecordEntry]:
        """RECORD's entries."""
        for row in parse_record_file(self.read_dist_info("RECORD").splitlines()):
            yield RecordEntry.from_elements(*row)

    def get_contents(self) -> Iterator[WheelContentElement]:
        for entry in self.entries():
            if "__pycache__" in PurePosixPath(entry.path).parts:
                continue  # compiled on the packager's machine; Python makes its own
            with _Member(self.folder / entry.path, entry) as stream:
                executable = bool(os.fstat(stream.fileno()).st_mode & 0o100)
                yield entry.to_row(), stream, executable


class _Member(io.BufferedReader):
    """A file of an unpacked wheel that knows its path and RECORD entry."""

    def __init__(self, path: Path, entry: RecordEntry) -> None:
        super().__init__(io.FileIO(path))
        self.path = path
        self.entry = entry


class _Linked(SchemeDictionaryDestination):
    """Installs members by hard links, and writes only what differs per environment: scripts."""

    def write_to_fs(
        self, scheme: Scheme, path: str, stream: BinaryIO, is_executable: bool
    ) -> RecordEntry:
        target = Path(self.scheme_dict[scheme], _safe(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(stream, _Member):
            _link(stream.path, target)
            return RecordEntry(path, stream.entry.hash_, stream.entry.size)
        entry = super().write_to_fs(scheme, path, stream, is_executable)
        finish(target, is_executable)
        return entry


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        # Namespace packages share files; two packages must not disagree on one.
        if source.read_bytes() != target.read_bytes():
            raise
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


@dataclass(frozen=True)
class InstallScheme:
    """Where an environment has its packages. python: what scripts run; it need not exist yet.
    headers: the folder with one for each package. data: the environment's own folder."""

    python: Path
    site: Path
    headers: Path
    scripts: Path
    data: Path


def link_into(folder: Path, name: str, into: InstallScheme, platform: str) -> None:
    """Install an unpacked wheel by hard links, for a platform as toolchains call it.

    name: of the folder for its headers. Raises ToolchainError, OSError.
    """
    source = UnpackedWheel(folder)
    schemes = {
        "purelib": str(into.site),
        "platlib": str(into.site),
        "headers": str(into.headers / name),
        "scripts": str(into.scripts),
        "data": str(into.data),
    }
    # The programs that start scripts.
    kind: Literal["posix", "win-amd64"] = "win-amd64" if platform == WINDOWS else "posix"
    destination = _Linked(schemes, str(into.python), kind)
    try:
        install(source, destination, {"INSTALLER": b"fatwheel\n"})
    except (InstallerError, ValueError, FileExistsError) as error:
        raise ToolchainError(
            f"{source.distribution} {source.version} cannot be installed: {error}"
        ) from error


# -- packages in the cache -------------------------------------------------------------------------

# Everything here may be deleted at any time; it is made again when it is needed.


# The folders of what is made, and of what is deleted once it is unpacked.
_FOLDERS = ("envs", "packages", "downloads", "cuda", "msvc", "systems")
_UNPACKED = 1.9  # bytes on disk per byte of wheel, with some to spare (measured: 1.7)


def folder_of(package: Package, cache: Path) -> Path:
    """Where a package lies once it is unpacked."""
    return cache / "packages" / package.sha256


def ensure_unpacked(packages: Sequence[Package], cache: Path, emit: Emit) -> None:
    """Fetch and unpack what is not there yet. Processes that want the same wait for each other.

    Raises StoreError (no space), ToolchainError (no sound wheel), and what `fetch` raises.
    """
    if missing(packages, cache):
        with alone(cache, emit):
            unpack_missing(packages, cache, emit)


def link_packages(
    packages: Sequence[Package], cache: Path, into: InstallScheme, platform: str, emit: Emit
) -> None:
    """Install packages that are unpacked. Emits Progress over bytes."""
    total, done = sum(package.size for package in packages), 0
    for package in packages:
        link_into(folder_of(package, cache), package.name, into, platform)
        done += package.size
        emit(Progress(INSTALL, done, total))


def missing(packages: Sequence[Package], cache: Path) -> list[Package]:
    """Those that are not unpacked, or no longer whole."""
    return [package for package in packages if not is_unpacked(folder_of(package, cache))]


@contextmanager
def alone(cache: Path, emit: Emit) -> Iterator[None]:
    """Hold the locks on environments, packages and homes; say so when that takes waiting.

    Each folder has its own, because a cache may be made of links to folders of other caches. Those
    that are not there yet are nobody else's.

    What killed runs left half-made is gone then. What goes wrong with the disk inside of the block
    ends in StoreError.
    """
    try:
        for name in ("envs", "packages"):
            (cache / name).mkdir(exist_ok=True)
        folders = {(cache / name).resolve() for name in _FOLDERS if (cache / name).is_dir()}
        with ExitStack() as locks:
            for folder in sorted(folders):  # whoever shares some of them locks in the same order
                locks.enter_context(one_at_a_time(folder, "making a toolchain's environment", emit))
                _sweep(folder)
            yield
    except OSError as error:
        raise files.disk_error(
            error, "make the toolchain's environment", cache, f"{VARIABLE}=FOLDER"
        ) from error


def unpack_missing(
    packages: Sequence[Package], cache: Path, emit: Emit, toolchain: str = ""
) -> None:
    """Bring all packages into <cache>/packages; only while being `alone`.

    toolchain: the one that they belong to, for what an error says.
    """
    absent = missing(packages, cache)
    check_space(needed_for(absent), cache)
    for package in absent:
        shutil.rmtree(folder_of(package, cache), ignore_errors=True)
    downloads = cache / "downloads"
    fetch(absent, downloads, emit, toolchain=toolchain)
    unpack_all({place(package, downloads): folder_of(package, cache) for package in absent}, emit)


def _sweep(folder: Path) -> None:
    """Delete what killed runs left half-made. Only under its lock: else it may be in use."""
    for part in folder.glob(".*.part"):
        shutil.rmtree(part)


def needed_for(absent: Sequence[Package]) -> int:
    """Bytes of disk that packages take which are not unpacked yet, as far as sizes are known."""
    return int(sum(package.size for package in absent) * _UNPACKED)


def check_space(needed: int, cache: Path) -> None:
    """Raise StoreError unless the cache's disk has so many bytes left."""
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise StoreError(
            f"the toolchain needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            where=str(cache),
            hint=f"free some space, or use a folder on another disk: {VARIABLE}=FOLDER",
        )
