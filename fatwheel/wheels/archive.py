"""A bounded reader of wheels from anywhere.

A wheel is a zip archive (PKWARE APPNOTE 6.3) with one `.dist-info` folder (Python packaging's
"Binary distribution format"). Installers trust much of it; this reader accepts only what an
honest tool writes and refuses, with FormatError, whatever could harm or mislead: names that leave
the folder, links, duplicates, encryption, odd compression, overlapping members, expansion bombs,
bytes before or after the archive. Sizes are bytes. Nothing is ever unpacked under its own name.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import FormatError, StoreError
from ..mapped import map_file
from .metadata import field, fields

MAX_MEMBERS = 100_000
MAX_DIRECTORY = 64 << 20
# A member's text that is read whole: METADATA, WHEEL, RECORD.
MAX_TEXT = 64 << 20
MAX_TOTAL = 32 << 30
# Of all members together. Real wheels stay below 20; deflate can reach 1032.
MAX_RATIO = 100
# Below this total the ratio does not matter.
_SMALL = 256 << 20
_COPY_STEP = 1 << 20

_END = struct.Struct("<4sHHHHIIH")
_END_MAGIC = b"PK\x05\x06"
_END64 = struct.Struct("<4sQHHIIQQQQ")
_END64_MAGIC = b"PK\x06\x06"
_LOCATOR64 = struct.Struct("<4sIQI")
_LOCATOR64_MAGIC = b"PK\x06\x07"
_LOCAL = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"

_ENCRYPTED = 0x1 | 0x40 | 0x2000
_BAD_NAME = re.compile(r"[\\:\x00-\x1f\x7f]")
# What Windows cannot have as a file or folder, or takes for a device (Microsoft, "Naming Files,
# Paths, and Namespaces"): a wheel must not mean something else there.
_NOT_ON_WINDOWS = re.compile(
    r'.*[<>"|?*].*|.*[. ]|(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\..*)?',
    re.IGNORECASE | re.DOTALL,
)
# What `zipfile` lets escape on a malformed archive, besides its own error.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    IndexError,
    OverflowError,
)


@dataclasses.dataclass(frozen=True)
class Member:
    """One file of the wheel; mode is its Unix permission bits, 0 where none are recorded."""

    name: str
    size: int
    mode: int
    info: zipfile.ZipInfo = dataclasses.field(repr=False, compare=False)


class Wheel:
    """An open wheel. name, version and tags are what its own METADATA and WHEEL say.

    dist_info is the folder's name without slash; members are in the archive's order, without
    entries for folders.
    """

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path = path
        self._zip, directory = _open_zip(stream)
        self.members = _check_members(self._zip.infolist(), directory, stream)
        self._by_name = {member.name: member for member in self.members}
        self.dist_info = _dist_info(self._by_name)
        metadata = self.read(f"{self.dist_info}/METADATA")
        self.name = field(metadata, "Name", "METADATA")
        self.version = field(metadata, "Version", "METADATA")
        self.tags = tuple(fields(self.read(f"{self.dist_info}/WHEEL"), "Tag"))
        if not (self.name and self.version and self.tags):
            raise FormatError("it does not say its name, version and tags", where=self.dist_info)

    def read(self, name: str) -> bytes:
        """The whole content of a small member; FormatError if it is missing, large or damaged."""
        member = self._member(name)
        if member.size > MAX_TEXT:
            raise FormatError(f"{member.size} bytes are too many for such a file", where=name)
        with self._reading(member) as stream:
            data = stream.read()
        _check_size(member, len(data))
        return data

    @property
    def newest(self) -> int:
        """The newest time of its files, taken for UTC, in seconds since 1970; 0 if none has one.

        A zip archive holds times of no time zone.
        """
        return max(map(_time_of, self.members), default=0)

    def start(self, name: str, size: int) -> bytes:
        """The first bytes of a member, up to `size`, not checked against its checksum."""
        with self._reading(self._member(name)) as stream:
            return stream.read(size)

    def pieces(self, name: str) -> Iterator[bytes]:
        """A member's whole content, checked, a piece at a time."""
        member, size = self._member(name), 0
        with self._reading(member) as stream:
            while piece := stream.read(_COPY_STEP):
                size += len(piece)
                yield piece
        _check_size(member, size)

    @contextmanager
    def mapped(self, name: str, watch: Callable[[bytes], object] = len) -> Iterator[memoryview]:
        """A member's whole content, checked, through a temporary file: large ones are fine.

        watch is shown the content, a piece at a time, before the block begins. The view may
        outlive the block; the file goes when the last view of it does.
        """
        member = self._member(name)
        with _temporary_file(member) as copy:
            self._copy(member, copy, watch)
            if member.size == 0:
                yield memoryview(b"")
            else:
                yield map_file(copy)

    def _copy(self, member: Member, copy: IO[bytes], watch: Callable[[bytes], object]) -> None:
        try:
            for piece in self.pieces(member.name):
                copy.write(piece)
                watch(piece)
            copy.flush()
        except OSError as error:
            raise _no_copy(member, error) from error

    def _member(self, name: str) -> Member:
        if name not in self._by_name:
            raise FormatError("the wheel has no such file", where=name)
        return self._by_name[name]

    @contextmanager
    def _reading(self, member: Member) -> Iterator[IO[bytes]]:
        """The member's content; zipfile stops at its declared size and checks its CRC."""
        try:
            with self._zip.open(member.info) as stream:
                yield stream
        except _ZIP_ERRORS as error:
            raise FormatError(f"the member is damaged: {error}", where=member.name) from error


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


def _open_zip(stream: IO[bytes]) -> tuple[zipfile.ZipFile, int]:
    """Open the archive once its end and the size of its directory are known to be sane.

    Also returns where the directory starts.
    """
    stream.seek(0)
    if stream.read(4) != _LOCAL_MAGIC:
        raise FormatError("not a wheel: it does not start as a zip archive")
    count, size, offset, end = _directory_place(stream)
    if count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise FormatError(
            f"the archive lists {count} members in {size} bytes",
            hint=f"at most {MAX_MEMBERS} members in {MAX_DIRECTORY} bytes are accepted",
        )
    if offset + size != end:
        raise FormatError("there are bytes that do not belong to the zip archive")
    try:
        archive = zipfile.ZipFile(stream)
    except _ZIP_ERRORS as error:
        raise FormatError(f"the zip archive is damaged: {error}") from error
    if len(archive.infolist()) != count:
        raise FormatError("the zip archive's count of members is wrong")
    return archive, offset


def _directory_place(stream: IO[bytes]) -> tuple[int, int, int, int]:
    """(count, size, offset) of the central directory, and where the end records start."""
    length = stream.seek(0, 2)
    tail = _read_at(stream, length - _END.size, _END.size)
    magic, _, _, _, count, size, offset, comment = _END.unpack(tail)
    if magic != _END_MAGIC or comment:
        raise FormatError(
            "the zip archive is cut off, or something follows it",
            hint="a wheel ends with the zip archive's end record, without a comment",
        )
    end = length - _END.size
    if end < _LOCATOR64.size:
        return count, size, offset, end
    locator = _read_at(stream, end - _LOCATOR64.size, _LOCATOR64.size)
    magic, _, end64, _ = _LOCATOR64.unpack(locator)
    if magic != _LOCATOR64_MAGIC:
        return count, size, offset, end
    record = _END64.unpack(_read_at(stream, end64, _END64.size))
    if record[0] != _END64_MAGIC or end64 + _END64.size + _LOCATOR64.size != end:
        raise FormatError("the zip64 end record is damaged")
    return record[7], record[8], record[9], end64


def _read_at(stream: IO[bytes], offset: int, size: int) -> bytes:
    data = b""
    if offset >= 0:
        stream.seek(offset)
        data = stream.read(size)
    if len(data) != size:
        raise FormatError("the zip archive is cut off")
    return data


def _check_members(
    infos: list[zipfile.ZipInfo], directory: int, stream: IO[bytes]
) -> tuple[Member, ...]:
    seen: set[str] = set()
    members = []
    for info in infos:
        _check_name(info)
        if info.filename.lower() in seen:
            raise FormatError(
                "the archive holds two files of this name",
                where=info.filename,
                hint="upper and lower case are the same on Windows",
            )
        seen.add(info.filename.lower())
        mode = info.external_attr >> 16
        _check_kind(info, mode)
        if not info.is_dir():
            members.append(Member(info.filename, info.file_size, stat.S_IMODE(mode), info))
    _check_no_file_is_a_folder(seen)
    _check_expansion(members)
    _check_places(infos, directory, stream)
    return tuple(members)


def _check_name(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    parts = name.removesuffix("/").split("/")
    if _BAD_NAME.search(name) or any(part in ("", ".", "..") for part in parts):
        raise FormatError(
            f"the archive holds a file named {name!r}",
            hint="names must be relative, with forward slashes, and stay inside the wheel",
        )
    if any(map(_NOT_ON_WINDOWS.fullmatch, parts)):
        raise FormatError(
            f"the archive holds a file named {name!r}, which Windows cannot have",
            hint='no part may end with a dot or a space, hold any of <>"|?*, or be a device: NUL',
        )


def _check_kind(info: zipfile.ZipInfo, mode: int) -> None:
    kind = stat.S_IFMT(mode)
    expected = stat.S_IFDIR if info.is_dir() else stat.S_IFREG
    if kind not in (0, expected):
        raise FormatError("only plain files are accepted, no links", where=info.filename)
    if info.is_dir() and info.file_size:
        raise FormatError("a folder cannot have content", where=info.filename)
    if info.flag_bits & _ENCRYPTED:
        raise FormatError("it is encrypted", where=info.filename)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(
            f"compression method {info.compress_type} is not accepted",
            where=info.filename,
            hint="installers can read stored and deflated members",
        )
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise FormatError("its two sizes differ although it is stored", where=info.filename)


def _check_no_file_is_a_folder(names: Iterable[str]) -> None:
    files = {name for name in names if not name.endswith("/")}
    for name in names:
        parts = name.rstrip("/").split("/")
        for depth in range(1, len(parts) + name.endswith("/")):
            if "/".join(parts[:depth]) in files:
                raise FormatError("a file stands where its folder should be", where=name)


def _check_expansion(members: list[Member]) -> None:
    total = sum(member.size for member in members)
    stored = sum(member.info.compress_size for member in members)
    if total > MAX_TOTAL or total > max(stored * MAX_RATIO, _SMALL):
        raise FormatError(
            f"{stored} bytes would expand to {total}",
            hint=f"accepted are {MAX_RATIO} times as much, and at most {MAX_TOTAL} bytes",
        )


def _check_places(infos: list[zipfile.ZipInfo], directory: int, stream: IO[bytes]) -> None:
    """Members must follow one another without sharing bytes, from the start to the directory."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        offset = info.header_offset
        magic, name_size, extra_size = _LOCAL.unpack(_read_at(stream, offset, _LOCAL.size))
        if magic != _LOCAL_MAGIC or offset < end or (end == 0 and offset):
            raise FormatError("the member overlaps another or is misplaced", where=info.filename)
        end = offset + _LOCAL.size + name_size + extra_size + info.compress_size
    if end > directory:
        raise FormatError("the last member reaches into the archive's directory")


def _temporary_file(member: Member) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise _no_copy(member, error) from error


def _no_copy(member: Member, error: OSError) -> StoreError:
    return StoreError(
        f"cannot make a temporary copy of {member.size} bytes: {error}",
        where=member.name,
        hint="make room in the folder for temporary files, or point TMPDIR elsewhere",
    )


def _time_of(member: Member) -> int:
    try:
        moment = datetime.datetime(*member.info.date_time, tzinfo=datetime.timezone.utc)
    except ValueError:  # such as the month 0, where a writer left the time out
        return 0
    return int(moment.timestamp())


def _check_size(member: Member, size: int) -> None:
    if size != member.size:
        raise FormatError(f"it has {size} bytes, not {member.size}", where=member.name)


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
