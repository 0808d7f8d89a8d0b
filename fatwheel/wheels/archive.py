"""Reads wheels from untrusted sources, within limits.

A wheel is a zip archive (`zipreader`) with one `.dist-info` folder (Python packaging's "Binary
distribution format"). Installers trust much of it; this reader accepts only what an honest tool
writes and refuses, with FormatError, whatever could harm or mislead: archives that two readers
see differently, names that leave the folder or are one on some systems, links, expansion bombs.
Sizes are bytes. Nothing is ever unpacked under its own name.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import mmap
import re
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import FormatError, StoreError
from ..storage import files
from ..storage.mapped import map_file
from .metadata import field, fields
from .zipreader import ZipEntry, pieces, read_entries, start_of, stored_pieces

# A member's text that is read whole: METADATA, WHEEL, RECORD.
MAX_TEXT = 32 << 20
MAX_TOTAL = 32 << 30
# Of all members together. Real wheels stay below 20; deflate can reach 1032.
MAX_RATIO = 100
# What file systems take (ext4, NTFS, APFS), and a depth that nobody needs.
MAX_PART, MAX_NAME, MAX_DEPTH = 255, 2000, 64
# Below this total the ratio does not matter.
_SMALL = 256 << 20

# Some of them end a line for Python's splitlines, with which installers read RECORD.
_BAD_NAME = re.compile(r"[\\:\x00-\x1f\x7f-\x9f\u2028\u2029]")
# What Windows cannot have as a file or folder, or takes for a device (Microsoft, "Naming Files,
# Paths, and Namespaces"): a wheel must not mean something else there.
_NOT_ON_WINDOWS = re.compile(
    r'.*[<>"|?*].*|.*[. ]|(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\..*)?',
    re.IGNORECASE | re.DOTALL,
)
_LINUX = re.compile(r"[^-]+-[^-]+-[a-z]*linux[a-z0-9_]*")  # a tag of WHEEL


# Where installers look for it: any folder of that suffix (pip), or that of the wheel's own name.
_SCHEME = re.compile(r"[^/]+\.data/(?:purelib|platlib)/(.+)", re.IGNORECASE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Member:
    """One file of the wheel; mode is its Unix permission bits, 0 where none are recorded."""

    name: str
    size: int
    mode: int
    entry: ZipEntry = dataclasses.field(repr=False, compare=False)


class Wheel:
    """An open wheel. name, version and tags are what its own METADATA and WHEEL say.

    dist_info is the folder's name without slash; members are in the archive's order, without
    entries for folders.
    """

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path = path
        self._stream = stream
        self.members = _check_members(read_entries(stream))
        self._by_name = {member.name: member for member in self.members}
        self.dist_info = _dist_info(self._by_name)
        _check_places(self._by_name)
        metadata = self.read(f"{self.dist_info}/METADATA")
        self.name = field(metadata, "Name", "METADATA")
        self.version = field(metadata, "Version", "METADATA")
        self.tags = tuple(fields(self.read(f"{self.dist_info}/WHEEL"), "Tag"))
        if not (self.name and self.version and self.tags):
            raise FormatError("it does not state its name, version and tags", where=self.dist_info)
        if sys.platform == "win32" or not all(map(_LINUX.fullmatch, self.tags)):
            _check_windows_has(self._by_name)

    def read(self, name: str) -> bytes:
        """The whole content of a small member; FormatError if it is missing, large or damaged."""
        member = self._member(name)
        if member.size > MAX_TEXT:
            raise FormatError(f"{member.size} bytes are too many for such a file", where=name)
        return b"".join(pieces(self._stream, member.entry))

    def digest(self) -> tuple[str, int]:
        """sha256 and size in bytes of the wheel itself, of the very file that is open."""
        self._stream.seek(0)
        return files.copy(self._stream, None)

    @property
    def newest(self) -> int:
        """The newest time of its files, taken for UTC, in seconds since 1970; 0 if none has one.

        A zip archive holds times of no time zone.
        """
        return max(map(_time_of, self.members), default=0)

    def start(self, name: str, size: int) -> bytes:
        """The first bytes of a member, up to `size`, not checked against its checksum."""
        return start_of(self._stream, self._member(name).entry, size)

    def pieces(self, name: str) -> Iterator[bytes]:
        """A member's whole content, checked, a piece at a time."""
        return pieces(self._stream, self._member(name).entry)

    def stored(self, name: str) -> Iterator[bytes]:
        """The bytes of the archive that a member was compressed to, a piece at a time."""
        return stored_pieces(self._stream, self._member(name).entry)

    @contextmanager
    def mapped(self, name: str, watch: Callable[[bytes], object] = len) -> Iterator[memoryview]:
        """A member's whole content, checked, through a temporary file: large ones are fine.

        watch is shown the content, a piece at a time, before the block begins. The view may
        outlive the block; the file goes when the last view of it does.
        """
        member = self._member(name)
        with _temporary_file(member.size, member.name) as copy:
            self.copy(name, copy, watch)
            if member.size == 0:
                yield memoryview(b"")
            else:
                yield map_file(copy)

    def copy(self, name: str, copy: IO[bytes], watch: Callable[[bytes], object]) -> None:
        """Write a member's whole content, checked, to a temporary file, and show it to watch."""
        try:
            for piece in self.pieces(name):
                copy.write(piece)
                watch(piece)
            copy.flush()
        except OSError as error:
            raise _no_copy(self._member(name).size, name, error) from error

    def _member(self, name: str) -> Member:
        if name not in self._by_name:
            raise FormatError("the wheel has no such file", where=name)
        return self._by_name[name]


class Unpacked:
    """Members of a wheel in one temporary file, which goes when the last view of them does.

    There may be thousands, and systems bound how many files a process has open.
    """

    def __init__(self, wheel: Wheel) -> None:
        size = sum(_whole_pages(member.size) for member in wheel.members)
        self._wheel = wheel
        self._sizes = {member.name: member.size for member in wheel.members}
        self._copy = _temporary_file(size, str(wheel.path))
        self._copy.truncate(size)  # takes no space until it is written to
        self._views = map_file(self._copy)
        self._start = self._end = 0

    def add(self, name: str, watch: Callable[[bytes], object]) -> memoryview:
        """A member's whole content, checked. watch is shown it, a piece at a time."""
        self._start = self._end
        self._copy.seek(self._start)
        self._wheel.copy(name, self._copy, watch)
        size = self._sizes[name]
        self._end += _whole_pages(size)
        return self._views[self._start : self._start + size]

    def drop(self) -> None:
        """The last one is needed no more: the next takes its place."""
        self._end = self._start


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


@contextmanager
def open_wheel(path: Path) -> Iterator[Wheel]:
    """Open a wheel and check its structure; FormatError if it is none.

    FormatErrors of the block, too, get the wheel's path in front of their place.
    """
    with path.open("rb") as stream:
        try:
            yield Wheel(path, stream)
        except FormatError as error:
            where = f"{path}: {error.where}" if error.where else str(path)
            raise FormatError(
                error.what, where=where, hint=error.hint, details=error.details
            ) from error


def _check_members(entries: Iterable[ZipEntry]) -> tuple[Member, ...]:
    seen: dict[str, bool] = {}
    members = []
    for entry in entries:
        _check_name(entry.name)
        mode = entry.attributes >> 16
        _check_kind(entry, mode)
        name = _same_everywhere(entry.name)
        if seen.get(name, entry.is_folder) != entry.is_folder:
            raise _file_as_folder(entry.name)
        if name in seen:
            raise FormatError(
                "the archive holds two files of this name",
                where=entry.name,
                hint="upper and lower case are the same on Windows, and one letter may be "
                "written in two ways",
            )
        seen[name] = entry.is_folder
        if not entry.is_folder:
            members.append(Member(entry.name, entry.size, stat.S_IMODE(mode), entry))
    _check_no_file_is_a_folder(seen)
    _check_expansion(members)
    return tuple(members)


def _same_everywhere(name: str) -> str:
    """The same text for all names that some file system takes for one."""
    return unicodedata.normalize("NFC", name.rstrip("/")).casefold()


def _check_name(name: str) -> None:
    parts = name.removesuffix("/").split("/")
    if _BAD_NAME.search(name) or any(part in ("", ".", "..") for part in parts):
        raise FormatError(
            f"the archive holds a file named {name[:MAX_NAME]!r}",
            hint="names must be relative, with forward slashes, and stay inside the wheel",
        )
    longest = max(len(part.encode()) for part in parts)
    if longest > MAX_PART or len(name) > MAX_NAME or len(parts) > MAX_DEPTH:
        raise FormatError(
            f"the archive holds a file with a name of {len(name)} characters: {name[:60]!r}...",
            hint=f"a part may have {MAX_PART} bytes, a name {MAX_NAME} characters, and "
            f"{MAX_DEPTH} parts",
        )


def _check_windows_has(names: Iterable[str]) -> None:
    """Of published wheels for Linux alone some have others."""
    for name in names:
        if any(map(_NOT_ON_WINDOWS.fullmatch, name.split("/"))):
            raise FormatError(
                f"the archive holds a file named {name!r}, which Windows cannot have",
                hint='no part may end with a dot or a space, hold any of <>"|?*, or be a device: '
                "NUL",
            )


def _check_kind(entry: ZipEntry, mode: int) -> None:
    kind = stat.S_IFMT(mode)
    expected = stat.S_IFDIR if entry.is_folder else stat.S_IFREG
    # The low half is DOS's: some readers go by it, whatever the name says.
    marked = bool(entry.attributes & stat.FILE_ATTRIBUTE_DIRECTORY)
    if kind not in (0, expected) or (marked and not entry.is_folder):
        raise FormatError("only plain files are accepted, no links", where=entry.name)
    if entry.is_folder and entry.size:
        raise FormatError("a folder cannot have content", where=entry.name)


def _check_no_file_is_a_folder(folders: Mapping[str, bool]) -> None:
    """folders: whether each name is one. What lies below a name comes right behind it where `/`
    comes before all other characters, of which none is NUL."""
    ordered = sorted(name.replace("/", "\0") for name in folders)
    for name, following in itertools.pairwise(ordered):
        place = name.replace("\0", "/")
        if following.startswith(f"{name}\0") and not folders[place]:
            raise _file_as_folder(following.replace("\0", "/"))


def _file_as_folder(name: str) -> FormatError:
    return FormatError("a file stands where its folder should be", where=name)


def _check_places(names: Iterable[str]) -> None:
    """Installers put what lies in NAME.data/purelib and platlib beside all else: two files of one
    place, or metadata that come from there, would be another wheel than the one that is seen."""
    places: set[str] = set()
    for name in names:
        inner = _SCHEME.fullmatch(name)
        place = _same_everywhere(inner[1] if inner else name)
        if place in places:
            raise FormatError("two files of the wheel are installed at one place", where=name)
        if inner and place.partition("/")[0].endswith(".dist-info"):
            raise FormatError("it would be installed as metadata of a package", where=name)
        places.add(place)


def _check_expansion(members: list[Member]) -> None:
    total = sum(member.size for member in members)
    stored = sum(member.entry.stored for member in members)
    if total > MAX_TOTAL or total > max(stored * MAX_RATIO, _SMALL):
        raise FormatError(
            f"{stored} bytes would expand to {total}",
            hint=f"accepted are {MAX_RATIO} times as much, and at most {MAX_TOTAL} bytes",
        )


def _temporary_file(size: int, where: str) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise _no_copy(size, where, error) from error


def _no_copy(size: int, where: str, error: OSError) -> StoreError:
    return StoreError(
        f"cannot make a temporary copy of {size} bytes: {error}",
        where=where,
        hint="free some space in the folder for temporary files, or set TMPDIR to another one",
    )


def _time_of(member: Member) -> int:
    try:
        moment = datetime.datetime(*member.entry.time, tzinfo=datetime.timezone.utc)
    except ValueError:  # such as the month 0, where a writer left the time out
        return 0
    return int(moment.timestamp())


def _dist_info(members: Iterable[str]) -> str:
    names = set(members)
    folders = sorted({name.partition("/")[0] for name in names if "/" in name})
    found = [folder for folder in folders if folder.endswith(".dist-info")]
    if len(found) != 1:
        raise FormatError(f"{len(found)} .dist-info folders, not one: this is not a wheel")
    for file in ("METADATA", "WHEEL", "RECORD"):
        if f"{found[0]}/{file}" not in names:
            raise FormatError(f"{found[0]} has no {file}: this is not a wheel")
    return found[0]
