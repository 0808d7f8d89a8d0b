"""A ZIP reader that accepts an archive only if all readers would see the same in it.

Some readers go by the directory at the end, others from header to header as the bytes come in;
some believe extra fields, others don't know them. Python's own reader changes from release to
release. So this one knows the format itself and refuses, with FormatError, whatever one reader
could take for something else than the next: headers that differ, names that are decoded in two
ways, a second name or size in an extra field, bytes that belong to no member.

Format: PKWARE APPNOTE.TXT 6.3.10; sections are named where a rule comes from. Offsets and sizes
are bytes. `zipwriter` is the other direction.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO

from ..errors import FormatError

STORED, DEFLATED = 0, 8

MAX_MEMBERS = 100_000
MAX_DIRECTORY = 64 << 20
_STEP = 1 << 20
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF

_END = struct.Struct("<4sHHHHIIH")
_END_MAGIC = b"PK\x05\x06"
_END64 = struct.Struct("<4sQHHIIQQQQ")
_END64_MAGIC = b"PK\x06\x06"
_LOCATOR64 = struct.Struct("<4sIQI")
_LOCATOR64_MAGIC = b"PK\x06\x07"
_CENTRAL = struct.Struct("<4sBBHHHIIIIHHHHHII")
_CENTRAL_MAGIC = b"PK\x01\x02"
_LOCAL = struct.Struct("<4sHHHIIIIHH")
_LOCAL_MAGIC = b"PK\x03\x04"
_DESCRIPTOR_MAGIC = b"PK\x07\x08"

_NEWEST = 63  # 4.4.3: readers refuse what they think is newer than they are

# 4.4.4: how hard the writer tried, whether sizes follow the content, whether the name is UTF-8.
# All others mean encryption, patches or nothing that is known.
_DESCRIBED, _UTF8 = 0x8, 0x800
_FLAGS = 0x6 | _DESCRIBED | _UTF8
_ENCRYPTED = 0x1 | 0x40 | 0x2000

# 4.5 and 4.6: the extra fields that change nothing of name, kind or content. Others can: 0x7075
# is another name, 0x6375 a comment, 0x000d and 0x756e make links, 0x9901 and 0x0017 encrypt.
_ZIP64 = 0x0001
_HARMLESS = frozenset(
    (
        *(_ZIP64, 0x000A, 0x5455),  # sizes, which are compared; times of NTFS and Unix
        *(0x5855, 0x7855, 0x7875),  # owners and times, as Info-ZIP has written them
        *(0xA220, 0xCAFE, 0xD935),  # room of Microsoft's tools, a JAR's mark, room to align
    )
)


@dataclass(frozen=True)
class ZipEntry:
    """A member of an archive, as its directory lists it and its local header confirms.

    system, made_by and needs: who wrote it, and versions of the format (4.4.2, 4.4.3); moment:
    DOS date and time, in the high and low half; attributes: 4.4.15; offset is that of the local
    header, start that of the content, of which `stored` bytes become `size`.
    """

    name: str
    system: int
    made_by: int
    needs: int
    flags: int
    method: int
    moment: int
    crc: int
    stored: int
    size: int
    internal: int
    attributes: int
    extra: bytes
    offset: int
    start: int

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")

    @property
    def time(self) -> tuple[int, int, int, int, int, int]:
        """Year, month, day, hour, minute, second of no time zone; perhaps no such moment."""
        date, time = self.moment >> 16, self.moment & _MAX16
        return (
            (date >> 9) + 1980, date >> 5 & 15, date & 31,
            time >> 11, time >> 5 & 63, (time & 31) * 2,
        )  # fmt: skip


def read_entries(stream: IO[bytes]) -> tuple[ZipEntry, ...]:
    """All members of an archive, in its directory's order. FormatError unless all readers agree.

    What the members hold is checked when it is read.
    """
    stream.seek(0)
    if stream.read(4) != _LOCAL_MAGIC:
        raise FormatError("not a wheel: it does not start as a zip archive")
    count, size, offset = _directory(stream)
    listed = list(_listed(_read_at(stream, offset, size), count))
    in_place = sorted(listed, key=lambda one: one.offset)
    ends = [*(one.offset for one in in_place[1:]), offset]
    if in_place and in_place[0].offset != 0:
        raise FormatError("there are bytes before the first member", where=in_place[0].name)
    starts = {one.offset: _start(stream, one, end) for one, end in zip(in_place, ends, strict=True)}
    return tuple(replace(one, start=starts[one.offset]) for one in listed)


def pieces(stream: IO[bytes], entry: ZipEntry) -> Iterator[bytes]:
    """A member's whole content, a piece at a time; FormatError at its end if it is damaged.

    Never yields more than the member's size, so that a bomb does not go off.
    """
    size = crc = 0
    for piece in _content(stream, entry, _STEP):
        size += len(piece)
        if size > entry.size:
            break
        crc = zlib.crc32(piece, crc)
        yield piece
    if size != entry.size:
        more = "more" if size > entry.size else "fewer"
        what = f"the member is damaged: it has {more} than {entry.size} bytes"
        raise FormatError(what, where=entry.name)
    if crc != entry.crc:
        raise FormatError("the member is damaged: its CRC-32 is wrong", where=entry.name)


def start_of(stream: IO[bytes], entry: ZipEntry, size: int) -> bytes:
    """The first bytes of a member, up to `size`, not checked against its checksum."""
    found = b""
    for piece in _content(stream, entry, 4096):
        found += piece
        if len(found) >= size:
            break
    return found[:size]


def stored_pieces(stream: IO[bytes], entry: ZipEntry, step: int = _STEP) -> Iterator[bytes]:
    """The bytes of the archive that a member was compressed to, a piece at a time."""
    for at in range(entry.start, entry.start + entry.stored, step):
        yield _read_at(stream, at, min(step, entry.start + entry.stored - at))


def _content(stream: IO[bytes], entry: ZipEntry, step: int) -> Iterator[bytes]:
    stored = stored_pieces(stream, entry, step)
    if entry.method == STORED:
        yield from stored
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for packed in stored:
            if inflater.eof:
                break
            yield from _inflated(inflater, packed, step)
    except zlib.error as error:
        raise FormatError(f"the member is damaged: {error}", where=entry.name) from error
    # Readers that go from header to header look for what follows behind the stream's own end.
    if not inflater.eof or inflater.unused_data or next(stored, b""):
        what = "the member is damaged: its compressed bytes do not end where they should"
        raise FormatError(what, where=entry.name)


def _inflated(inflater: zlib._Decompress, packed: bytes, step: int) -> Iterator[bytes]:
    while True:
        piece = inflater.decompress(packed, step)
        if piece:
            yield piece
        packed = inflater.unconsumed_tail
        if inflater.eof or (not packed and len(piece) < step):
            return


# -- the directory ---------------------------------------------------------------------------------


def _directory(stream: IO[bytes]) -> tuple[int, int, int]:
    """(count, size, offset) of the directory, which must end where the end records start.

    4.3.16 is the end record, 4.3.14 and 4.3.15 are those of zip64.
    """
    length = stream.seek(0, 2)
    tail = _read_at(stream, length - _END.size, _END.size)
    magic, *numbers, comment = _END.unpack(tail)
    # Readers look for the last place where the record could begin.
    if magic != _END_MAGIC or comment or tail.rfind(_END_MAGIC) != 0:
        raise FormatError(
            "the zip archive is cut off, or something follows it",
            hint="a wheel ends with the zip archive's end record, without a comment",
        )
    end = length - _END.size
    wide = _end64(stream, end)
    if wide:
        end -= _END64.size + _LOCATOR64.size
        for short, long, most in zip(numbers, wide, (*[_MAX16] * 4, *[_MAX32] * 2), strict=True):
            if short not in (long, most):
                raise FormatError("the end records of the zip archive differ")
        numbers = wide
    disk, first_disk, here, count, size, offset = numbers
    if disk or first_disk:
        raise FormatError("the zip archive is one of several parts")
    if here != count:
        raise FormatError("the zip archive's count of members is wrong")
    if count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise FormatError(
            f"the archive lists {count} members in {size} bytes",
            hint=f"at most {MAX_MEMBERS} members in {MAX_DIRECTORY} bytes are accepted",
        )
    if offset + size != end:
        raise FormatError("there are bytes that do not belong to the zip archive")
    return count, size, offset


def _end64(stream: IO[bytes], end: int) -> list[int] | None:
    """The same six numbers as in the end record, of which zip64 has wider ones, if it is used."""
    if end < _LOCATOR64.size:
        return None
    locator = _read_at(stream, end - _LOCATOR64.size, _LOCATOR64.size)
    magic, disk, offset, disks = _LOCATOR64.unpack(locator)
    if magic != _LOCATOR64_MAGIC:
        return None
    magic, size, _, _, *numbers = _END64.unpack(_read_at(stream, offset, _END64.size))
    in_place = offset + _END64.size + _LOCATOR64.size == end and size == _END64.size - 12
    if magic != _END64_MAGIC or not in_place or disk or disks > 1:
        raise FormatError("the zip64 end record is damaged")
    return numbers


def _listed(directory: bytes, count: int) -> Iterator[ZipEntry]:
    """4.3.12: one header after the other, and nothing else. Where contents start is not known."""
    at = 0
    for number in range(count):
        if directory[at : at + 4] != _CENTRAL_MAGIC or len(directory) - at < _CENTRAL.size:
            raise FormatError(f"the zip archive's directory is damaged at member {number}")
        (_, made_by, system, needs, flags, method, moment, crc, stored, size, name_size,
         extra_size, comment_size, disk, internal, external, offset) = _CENTRAL.unpack_from(
            directory, at
        )  # fmt: skip
        at += _CENTRAL.size
        raw_name = directory[at : at + name_size]
        at += name_size
        extra = directory[at : at + extra_size]
        at += extra_size
        if at > len(directory):
            raise FormatError(f"the zip archive's directory is damaged at member {number}")
        name = _name(raw_name, flags)
        if comment_size:
            raise FormatError("it has a comment, which a wheel has no use for", where=name)
        if disk:
            raise FormatError("it lies in another part of the zip archive", where=name)
        fields = _extra_fields(extra, name)
        size, stored, offset = _wide(fields, (size, stored, offset), name)
        _check_kind(name, needs, flags, method, stored, size)
        yield ZipEntry(
            name, system, made_by, needs, flags, method, moment, crc, stored, size,
            internal, external, extra, offset, start=0,
        )  # fmt: skip
    if at != len(directory):
        raise FormatError("the zip archive's count of members is wrong")


def _name(raw: bytes, flags: int) -> str:
    """Appendix D: a name is UTF-8 if flag 11 says so. Else it is code page 437 to some readers,
    and to others that of the machine: ASCII is the same in all."""
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"the archive holds a file named {raw[:200]!a}, which readers decode differently",
            hint="a name must be ASCII, or UTF-8 and marked as such",
        ) from error


def _check_kind(name: str, needs: int, flags: int, method: int, stored: int, size: int) -> None:
    if flags & _ENCRYPTED:
        raise FormatError("it is encrypted", where=name)
    if needs > _NEWEST:
        raise FormatError(f"it needs version {needs} of the zip format", where=name)
    if flags & ~_FLAGS:
        raise FormatError(f"its flags {flags:#06x} are not accepted", where=name)
    if method not in (STORED, DEFLATED):
        hint = "installers can read stored and deflated members"
        raise FormatError(f"compression method {method} is not accepted", where=name, hint=hint)
    if method == STORED and stored != size:
        raise FormatError("its two sizes differ although it is stored", where=name)


def _extra_fields(extra: bytes, name: str) -> dict[int, bytes]:
    """4.5: a number, a size and so many bytes, again and again."""
    fields: dict[int, bytes] = {}
    at = 0
    while at < len(extra):
        if len(extra) - at < 4:
            raise FormatError("its extra fields are damaged", where=name)
        number, size = struct.unpack_from("<HH", extra, at)
        at += 4
        if size > len(extra) - at or number in fields:
            raise FormatError("its extra fields are damaged", where=name)
        if number not in _HARMLESS:
            raise FormatError(
                f"it has the extra field {number:#06x}, which not all readers take alike",
                where=name,
                hint="another name, link or key can hide there; a wheel needs none of them",
            )
        fields[number] = extra[at : at + size]
        at += size
    return fields


def _wide(fields: Mapping[int, bytes], values: Sequence[int], name: str) -> tuple[int, ...]:
    """4.5.3: the extra field has, in this order, those of the values that are 0xFFFFFFFF."""
    missing = values.count(_MAX32)
    wide = fields.get(_ZIP64, b"")
    if len(wide) != 8 * missing:
        raise FormatError("its sizes and its zip64 field do not fit together", where=name)
    numbers = iter(struct.unpack(f"<{missing}Q", wide))
    return tuple(next(numbers) if value == _MAX32 else value for value in values)


# -- local headers ---------------------------------------------------------------------------------


def _start(stream: IO[bytes], entry: ZipEntry, end: int) -> int:
    """Where a member's content starts, once its local header is known to say the same as the
    directory, and the content, with what describes it, to reach to `end`.

    4.3.7 is the header, 4.3.9 what may follow the content.
    """
    where = entry.name
    if end - entry.offset < _LOCAL.size:
        raise FormatError("the member overlaps another or is misplaced", where=where)
    header = _read_at(stream, entry.offset, _LOCAL.size)
    (magic, needs, flags, method, moment, crc, stored, size, name_size, extra_size) = _LOCAL.unpack(
        header
    )
    if magic != _LOCAL_MAGIC:
        raise FormatError("the member overlaps another or is misplaced", where=where)
    rest = _read_at(stream, entry.offset + _LOCAL.size, name_size + extra_size)
    fields = _extra_fields(rest[name_size:], where)
    # Some tools write the sizes in both places, for readers that know one of them.
    if fields.get(_ZIP64) != struct.pack("<QQ", size, stored):
        size, stored = _wide(fields, (size, stored), where)
    start = entry.offset + _LOCAL.size + len(rest)
    found = (rest[:name_size], flags, method, moment)
    if needs > _NEWEST or found != (entry.name.encode(), entry.flags, entry.method, entry.moment):
        raise _differ(where)
    right = (entry.crc, entry.stored, entry.size)
    left_out = bool(flags & _DESCRIBED) and (crc, stored, size) == (0, 0, 0)
    if (crc, stored, size) != right and not left_out:
        raise _differ(where)
    if left_out and method == STORED and entry.size:
        hint = "readers that go from header to header cannot tell where it ends"
        raise FormatError("it is stored, and its size comes behind it", where=where, hint=hint)
    gap = end - start - entry.stored
    if gap < 0:
        raise FormatError("the member overlaps another or is misplaced", where=where)
    follows = _read_at(stream, end - min(gap, 24), min(gap, 24))
    if gap != len(follows) or follows not in _descriptors(flags, right, _ZIP64 in fields):
        raise FormatError("there are bytes behind it that do not belong to it", where=where)
    return start


def _descriptors(flags: int, right: tuple[int, int, int], wide: bool) -> tuple[bytes, ...]:
    """What may follow a member's content: 4.3.9.2 has wider sizes for zip64, 4.3.9.3 says that
    the magic number can be left out, which is found out only if nothing else looks like it."""
    if not flags & _DESCRIBED:
        return (b"",)
    if not wide and max(right) > _MAX32:
        return ()
    plain = struct.pack("<IQQ" if wide else "<III", *right)
    marked = _DESCRIPTOR_MAGIC + plain
    return (marked,) if plain.startswith(_DESCRIPTOR_MAGIC) else (marked, plain)


def _differ(where: str) -> FormatError:
    return FormatError(
        "its header and the archive's directory differ",
        where=where,
        hint="readers that go by the one would see another file than those that go by the other",
    )


def _read_at(stream: IO[bytes], offset: int, size: int) -> bytes:
    data = b""
    if offset >= 0:
        stream.seek(offset)
        data = stream.read(size)
    if len(data) != size:
        raise FormatError("the zip archive is cut off")
    return data
