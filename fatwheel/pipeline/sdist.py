"""Unpacks an sdist (a gzipped tar archive) from an untrusted source, within limits.

Python's tarfile reads names and pax records whole however long they claim to be, and what it takes
from them differs from release to release. So this reads the format itself, in constant memory:
plain files and folders with names of any of its three kinds, and nothing else. Sizes are bytes.

Formats: POSIX.1-2017 `pax` (ustar and extended headers), the GNU tar manual ("Basic Tar Format",
long names), PEP 625 (an sdist is a .tar.gz with one folder).
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, cast

from ..errors import FormatError
from ..storage.files import OF_THE_DISK

# The largest sdists with CUDA code hold 7000 files, 12 folders deep, in 100 MB.
MAX_EXPANSION = 4 << 30  # also of what is stored
MAX_MEMBERS = 200_000  # files and folders
MAX_DEPTH, MAX_NAME, MAX_PART = 64, 2000, 255  # parts; characters; bytes, as file systems have it
MAX_HEADER = 64 << 10  # of a long name, or of all pax records of a member

FIRST_TIME = 315619200  # seconds: 1980-01-02, a time that a zip archive can say in any zone
LAST_TIME = 4354819198  # seconds: the end of 2107, and of what a zip archive can say

_BLOCK = 512
_STEP = 1 << 20
_FILES, _FOLDER = b"0\0" + b"7", b"5"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL = b"L", b"K", b"xX", b"g"
_BAD_NAME = re.compile(r"[\\\x00-\x1f\x7f]")
_NUMBER = re.compile(r"[0-9]{1,19}")
_TIME = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,20})?")
# Of the records that say what a member is, these are known; the others of `GNU.` mean sparse files.
_RECORD = re.compile(rb"([0-9]{1,6}) ([^=\n]{1,200})=")


@dataclass(frozen=True)
class _Header:
    """A member: kind is the type flag; mtime is seconds since 1970."""

    name: str
    kind: bytes
    size: int
    executable: bool
    mtime: float

    @property
    def is_folder(self) -> bool:
        return self.kind == _FOLDER or (self.kind in _FILES and self.name.endswith("/"))


def unpack_sdist(archive: Path, folder: Path) -> Path:
    """Unpack an sdist into `folder`; returns the one folder that it holds.

    Files are 0644, or 0755 where they can be executed. Raises FormatError where the archive is
    damaged, hostile or too large, OSError where the disk is full or not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.stat().st_size > MAX_EXPANSION:
            raise FormatError("the sdist has more than 4 GiB")
        with gzip.open(archive) as stream:
            _unpack(_Tar(cast(BinaryIO, stream)), _Target(folder))
    except FormatError as error:
        raise error.within(archive.name) from error
    except OSError as error:
        if error.errno in OF_THE_DISK:
            raise
        raise FormatError(f"not a readable sdist: {error}", where=archive.name) from error
    except (zlib.error, EOFError) as error:
        raise FormatError(f"not a readable sdist: {error}", where=archive.name) from error
    tops = sorted(path.name for path in folder.iterdir())
    if len(tops) != 1 or not (folder / tops[0]).is_dir():
        shown = ", ".join(tops[:8]) or "nothing"
        raise FormatError(
            f"an sdist holds exactly one folder, this one holds {shown}", where=archive.name
        )
    return folder / tops[0]


def _unpack(tar: _Tar, target: _Target) -> None:
    for header in tar.headers():
        place = _place(header)
        if header.is_folder:
            target.make_folder(place)
            tar.skip(header.size)
        else:
            target.write(place, header, tar.content(header.size))
    tar.check_end()


def _place(header: _Header) -> PurePosixPath:
    """Where a member belongs; FormatError if that could be anywhere but below the target."""
    name, path = header.name, PurePosixPath(header.name)
    plain = header.is_folder or (header.kind in _FILES and path.parts)
    outside = path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive
    if not plain or outside:
        what = f"the sdist has a member that could escape its folder: {name[:200]!r}"
        hint = "only files and folders are unpacked, no links, devices or sparse files"
        raise FormatError(what, hint=hint)
    if _BAD_NAME.search(name):
        raise FormatError(f"the sdist has a member with an unusable name: {name[:200]!r}")
    parts = path.parts
    long = any(len(part.encode()) > MAX_PART for part in parts)
    if long or len(name) > MAX_NAME or len(parts) > MAX_DEPTH:
        raise FormatError(
            f"the sdist has a member with a name of {len(name)} characters: {name[:60]!r}...",
            hint=f"a part may have {MAX_PART} bytes, a name {MAX_NAME} characters, and "
            f"{MAX_DEPTH} parts",
        )
    return path


class _Target:
    """A folder that nobody else writes to, so that nothing in it is a link."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def make_folder(self, place: PurePosixPath) -> None:
        if place.parts:
            self._make(self._folder / place)

    def write(self, place: PurePosixPath, header: _Header, content: Iterator[bytes]) -> None:
        path = self._folder / place
        self._make(path.parent)
        if path.is_file():
            _compare(path, place, content)
            return
        self._add()
        with path.open("xb") as out:
            for piece in content:
                out.write(piece)
        path.chmod(0o755 if header.executable else 0o644)
        os.utime(path, (header.mtime, header.mtime))

    def _make(self, path: Path) -> None:
        if path.is_dir():
            return
        if path != self._folder:
            self._make(path.parent)
        self._add()
        path.mkdir()
        path.chmod(0o755)

    def _add(self) -> None:
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise FormatError(f"the sdist holds more than {MAX_MEMBERS} files and folders")


def _compare(path: Path, place: PurePosixPath, content: Iterator[bytes]) -> None:
    """Some tools add a file twice; which of two others counts, readers do not agree on."""
    with path.open("rb") as there:
        same = all(there.read(len(piece)) == piece for piece in content)
        if not same or there.read(1):
            raise FormatError(f"the sdist has two different files named {str(place)[:200]!r}")


class _Tar:
    """The members of an archive, one after the other."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = MAX_EXPANSION

    def headers(self) -> Iterator[_Header]:
        """Each must be read, or skipped, before the next is asked for."""
        for _ in range(MAX_MEMBERS):
            header = self._next()
            if header is None:
                return
            self._claim(header.size)
            yield header
        raise FormatError(f"the sdist holds more than {MAX_MEMBERS} files and folders")

    def content(self, size: int) -> Iterator[bytes]:
        for at in range(0, size, _STEP):
            yield self._exactly(min(_STEP, size - at))
        self._exactly(-size % _BLOCK)

    def skip(self, size: int) -> None:
        for _ in self.content(size):
            pass

    def check_end(self) -> None:
        """Behind the last member there are only zeros: other readers would go on behind them."""
        while piece := self._stream.read(_STEP):
            self._claim(len(piece))
            if piece.count(0) != len(piece):
                raise FormatError("the sdist has data after the end of its archive")

    def _next(self) -> _Header | None:
        """The next member with what its extended headers say; None at the end."""
        name = ""
        records: Mapping[str, str] = {}
        for _ in range(8):
            block = self._stream.read(_BLOCK)
            if not block or block == bytes(_BLOCK):
                return None
            if len(block) != _BLOCK:
                raise FormatError("not a readable sdist: it is truncated")
            header = _header(block)
            if header.kind == _LONG_NAME:
                name = _text(self._extended(header.size).rstrip(b"\0"))
            elif header.kind == _LONG_LINK or header.kind in _PAX_FOR_ALL:
                self._check_for_all(header)
            elif header.kind in _PAX:
                records = _records(self._extended(header.size))
            else:
                return _with_records(header, name, records)
        raise FormatError("not a readable sdist: it has headers without a member")

    def _check_for_all(self, header: _Header) -> None:
        data = self._extended(header.size)
        if header.kind in _PAX_FOR_ALL and _records(data).keys() & {"path", "size"}:
            raise FormatError("the sdist sets one name or size for all its members")

    def _extended(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise FormatError(
                f"the sdist has a header of {size} bytes",
                hint=(f"at most {MAX_HEADER} bytes are accepted"),
            )
        self._claim(size)
        return b"".join(self.content(size))

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) != size:
            raise FormatError("not a readable sdist: it is truncated")
        return data

    def _claim(self, size: int) -> None:
        self._left -= size + _BLOCK
        if self._left < 0:
            raise FormatError("the sdist unpacks to more than 4 GiB")


def _header(block: bytes) -> _Header:
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if _octal(block[148:156]) != total:
        raise FormatError("not a readable sdist: a header's checksum is wrong")
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return _Header(
        name=_text(prefix + b"/" + name if prefix else name),
        kind=block[156:157],
        size=_number(block[124:136]),
        executable=bool(_octal(block[100:108]) & 0o100),
        mtime=_sane(_number(block[136:148])),
    )


def _with_records(header: _Header, name: str, records: Mapping[str, str]) -> _Header:
    """Extended headers come before the field that they replace."""
    if any(key.startswith("GNU.sparse") for key in records) or "hdrcharset" in records:
        what = "the sdist has a member that is sparse or could escape its folder"
        raise FormatError(f"{what}: {header.name[:200]!r}")
    size = records.get("size", str(header.size))
    if not _NUMBER.fullmatch(size):
        raise FormatError("not a readable sdist: a size is not a number")
    mtime = header.mtime
    if "mtime" in records:
        time = records["mtime"]
        mtime = _sane(float(time)) if _TIME.fullmatch(time) else FIRST_TIME
    name = records.get("path", name or header.name)
    return _Header(name, header.kind, int(size), header.executable, mtime)


def _records(data: bytes) -> dict[str, str]:
    """Lines of `LENGTH KEY=VALUE`, the length that of the whole line."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        match = _RECORD.match(data, at)
        end = at + int(match[1]) if match else 0
        if match is None or end <= match.end() or data[end - 1 : end] != b"\n":
            raise FormatError("not a readable sdist: a pax header is damaged")
        key = match[2].decode("utf-8", "replace")
        value = data[match.end() : end - 1]
        # What else there is may be of any kind: attributes, names of owners.
        found[key] = _text(value) if key in ("path", "size", "mtime") else ""
        at = end
    return found


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"the sdist has a member with a name that is not UTF-8: {raw[:200]!a}"
        raise FormatError(what) from error


def _number(field: bytes) -> int:
    """Octal, or, with the first bit set, as GNU tar writes large numbers: in base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return 0 if field[0] == 0xFF else _octal(field)  # a negative one: only a time can be that


def _octal(field: bytes) -> int:
    text = field.partition(b"\0")[0].strip() or b"0"
    if not re.fullmatch(rb"[0-7]{1,12}", text):
        raise FormatError("not a readable sdist: a header holds an invalid number")
    return int(text, 8)


def _sane(seconds: float) -> float:
    return seconds if FIRST_TIME <= seconds <= LAST_TIME else FIRST_TIME
