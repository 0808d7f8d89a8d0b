"""Changes that damage files in the ways that readers get wrong.

All choices come from the given source of chance: the same source makes the same changes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..helpers.oddzips import MAX32, Odd, extra, unicode_path, zip_of
from .documents import change_json, change_toml
from .fields import TAR_BLOCK, Place, places_of, tar_headers

# What overflows, wraps, is negative, or is off by one.
NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 16, 40, 64, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF,
    0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32,
    2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 8, 2**64 - 1,
)  # fmt: skip
# What readers of text and of names stumble over.
WORDS = (
    b"\0", b"\n", b"\r\n", b",", b'"', b"'", b"/", b"//", b"\\", b"../", b"/etc/passwd", b"C:\\",
    b"\xff\xfe", b"\xc3", "ü".encode(), "\u202e".encode(), b"\x1b[2J", b" " * 300, b"a" * 5000,
    b"9" * 5000, b"sha256=", b"Name: x\n", b"Tag: a-b-c\n", b".entry x(", b"//", b"/*", b"\n\n",
)  # fmt: skip
NAMES = (
    "../seed.py", "/seed.py", "seed/_C.so", "seed", "seed/", "seed/./a", "a\\b", "a:b", "a\nb", "",
    "seed-1.0.dist-info/RECORD", "seed-2.0.dist-info/METADATA", "seed-1.0.dist-info/", "ü.so",
    "x" * 5000, "a/" * 2000 + "b", "seed/_C.cpython-39-x86_64-linux-gnu.so", "seed/_D.pyd",
)  # fmt: skip
# What begins an input of two files; the size of the first follows in four bytes.
PAIR = b"TWO\0"
_MOST_BYTES = 1 << 18
RECORD = "seed-1.0.dist-info/RECORD"


@dataclass(frozen=True)
class Seed:
    """A sound file; its places of interest are found when they are asked for."""

    name: str
    data: bytes

    @cached_property
    def places(self) -> tuple[Place, ...]:
        return places_of(self.data)


def mutate(source: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """The seed with one to five changes; `others` are what it may be spliced with."""
    if seed.data[:4] == PAIR:
        return _mutate_pair(source, seed, others)
    if source.random() < 0.7 and seed.data[:2] == b"PK":
        return _mutate_wheel(source, seed)
    document = _document(source, seed) if source.random() < 0.9 else None
    if document is not None:
        return document
    changed = _change(source, seed, others)
    return with_checksums(changed) if source.random() < 0.9 else changed


def _change(source: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    data = bytearray(seed.data)
    for _ in range(source.choice((0, 1, 1, 1, 2, 3))):
        _change_number(source, data, seed.places)
    for _ in range(source.choice((0, 0, 1, 1, 2)) if seed.places else 2):
        change = source.choice(_CHANGES)
        change(source, data)
    if source.random() < 0.05:
        _splice(source, data, source.choice(others).data)
    return bytes(data[:_MOST_BYTES])


def _document(source: random.Random, seed: Seed) -> bytes | None:
    """JSON and TOML keep their form; None for all else."""
    if seed.name.endswith(".toml"):
        return change_toml(source, seed.data)
    return change_json(source, seed.data) if seed.data[:1] == b"{" else None


def _change_number(source: random.Random, data: bytearray, places: Sequence[Place]) -> None:
    """Set a field to a number that is extreme, or nearly right, or another field's."""
    if not places:
        return
    offset, size = source.choice(places)
    old = int.from_bytes(data[offset : offset + size], "little")
    other, its_size = source.choice(places)
    numbers = (
        source.choice(NUMBERS),
        old + source.choice((-64, -24, -16, -8, -1, 1, 8, 16, 24, 64)),
        old ^ 1 << source.randrange(8 * size),
        len(data) - source.choice((0, 1, 8, offset)),
        int.from_bytes(data[other : other + its_size], "little"),
        source.getrandbits(8 * size),
    )
    _put(data, offset, size, source.choice(numbers))


def _put(data: bytearray, offset: int, size: int, number: int) -> None:
    if offset + size <= len(data):
        data[offset : offset + size] = (number % (1 << 8 * size)).to_bytes(size, "little")


def _flip_bits(source: random.Random, data: bytearray) -> None:
    for _ in range(source.choice((1, 1, 4, 16))):
        if data:
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _set_number(source: random.Random, data: bytearray) -> None:
    """A field wherever one might be."""
    size = source.choice((1, 2, 4, 8))
    _put(data, source.randrange(len(data) + 1) // size * size, size, source.choice(NUMBERS))


def _cut(source: random.Random, data: bytearray) -> None:
    del data[source.randrange(len(data) + 1) :]


def _remove(source: random.Random, data: bytearray) -> None:
    start, end = _block(source, data)
    del data[start:end]


def _repeat(source: random.Random, data: bytearray) -> None:
    start, end = _block(source, data)
    data[end:end] = data[start:end] * source.choice((1, 1, 1, 2, 8))


def _swap(source: random.Random, data: bytearray) -> None:
    start, end = _block(source, data)
    other = source.randrange(len(data) + 1)
    piece = data[other : other + end - start]
    data[other : other + len(piece)], data[start : start + len(piece)] = (
        data[start : start + len(piece)],
        piece,
    )


def _zero(source: random.Random, data: bytearray) -> None:
    start, end = _block(source, data)
    data[start:end] = bytes(end - start)


def _insert(source: random.Random, data: bytearray) -> None:
    at = source.randrange(len(data) + 1)
    data[at:at] = source.choice((source.choice(WORDS), source.randbytes(source.randint(1, 64))))


def _block(source: random.Random, data: bytearray) -> Place:
    """Start and end of a piece, aligned or not."""
    size = source.choice((1, 4, 8, 16, 24, 40, 64, 256, 4096))
    step = source.choice((1, 8, 512))
    start = source.randrange(len(data) + 1) // step * step
    return start, min(start + size, len(data))


_CHANGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip_bits, _flip_bits, _set_number, _set_number, _cut, _remove, _repeat, _swap, _zero, _insert,
)  # fmt: skip


def _splice(source: random.Random, data: bytearray, other: bytes) -> None:
    """The first part of one file and the last part of another."""
    at = source.randrange(len(data) + 1)
    data[at:] = other[min(at, len(other)) if source.random() < 0.5 else 0 :]


def split_pair(data: bytes) -> tuple[bytes, bytes]:
    """The files of an input of two."""
    end = 8 + int.from_bytes(data[4:8], "little")
    return data[8:end], data[end:]


def join_pair(one: bytes, other: bytes) -> bytes:
    return PAIR + len(one).to_bytes(4, "little") + one + other


def _mutate_pair(source: random.Random, seed: Seed, others: Sequence[Seed]) -> bytes:
    """One of the two files changed, sometimes both."""
    files = list(split_pair(seed.data))
    for index in source.choice(((0,), (1,), (0, 1))):
        files[index] = mutate(source, Seed(seed.name, files[index]), others)
    return join_pair(*files)


# -- wheels --------------------------------------------------------------------------------------


def _mutate_wheel(source: random.Random, seed: Seed) -> bytes:
    """Another archive of changed members, so that damage lies behind a sound archive, too."""
    with zipfile.ZipFile(io.BytesIO(seed.data)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    for _ in range(source.choice((1, 1, 2, 3))):
        _change_member(source, members)
    if source.random() < 0.6:
        members = _with_record(members)
    if source.random() < 0.15:
        return _odd_archive(source, members)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for info, data in members:
            fresh = zipfile.ZipInfo("x")
            fresh.filename, fresh.external_attr = info.filename, info.external_attr
            fresh.compress_type = source.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            archive.writestr(fresh, data, compresslevel=1)
    return out.getvalue()


Members = list[tuple[zipfile.ZipInfo, bytes]]


def _change_member(source: random.Random, members: Members) -> None:
    if not members:
        return
    index = source.randrange(len(members))
    info, data = members[index]
    kind = source.randrange(10)
    if kind < 6:
        part = Seed(info.filename, data)
        members[index] = (info, mutate(source, part, [Seed(i.filename, d) for i, d in members]))
    elif kind == 6:
        info.filename = source.choice(NAMES)
    elif kind == 7:
        del members[index]
    elif kind == 8:
        copy = zipfile.ZipInfo(source.choice((info.filename, *NAMES)) or "x")
        members.insert(source.randrange(len(members) + 1), (copy, data))
    else:
        info.external_attr = source.choice((0o120777, 0o040755, 0o100755, 0o020644, 0)) << 16


_FIELDS = ("needs", "flags", "method", "moment", "crc", "stored", "size")
_ENDS = ("disk", "first_disk", "here", "count", "size", "offset")


def _odd_archive(source: random.Random, members: Members) -> bytes:
    """The members with one to three fields of the archive as they should not be, or could be."""
    names = [info.filename for info, _ in members]
    odd = [
        Odd(info.filename, data, both={"method": source.choice((0, 8))}) for info, data in members
    ]
    for member in source.sample(odd, min(len(odd), source.choice((0, 1, 1, 2)))):
        _make_odd(source, member, names)
    ends: dict[str, object] = {}
    if source.random() < 0.3:
        ends = {
            "zip64": {source.choice(_ENDS): source.choice(NUMBERS) % 2**32}
            if source.random() < 0.5
            else {}
        }
    if source.random() < 0.1:
        ends[source.choice(_ENDS[:4])] = source.randrange(4)
    if source.random() < 0.1:
        ends[source.choice(("before_directory", "in_directory", "comment"))] = _gap(source)
    return zip_of(odd, **ends)  # type: ignore[arg-type]


def _make_odd(source: random.Random, member: Odd, names: Sequence[str]) -> None:
    kind = source.randrange(7)
    header = source.choice((member.both, member.local, member.central))
    if kind == 0:
        header[source.choice(_FIELDS)] = source.choice(NUMBERS) & 0xFFFF
    elif kind == 1:
        member.after = source.choice(("descriptor", "plain", "wide", _gap(source)))
    elif kind == 2:
        header["extra"] = unicode_path(source.choice((*names, "x.pth")), member.name)
    elif kind == 3:
        field = extra(
            source.choice((1, 1, 0xA, 0x5455, 0x7875, 0x9901)),
            source.randbytes(source.choice((0, 5, 8, 16, 24))),
        )
        header["extra"] = field * source.choice((1, 1, 2)) + source.choice((b"", b"", b"\0"))
    elif kind == 4:
        sizes = len(member.data), len(member.content(int(member.both["method"])))
        header |= {"size": MAX32, "stored": MAX32, "extra": extra(1, struct.pack("<QQ", *sizes))}
    elif kind == 5:
        header["name"] = source.choice((*names, "ü", "x")).encode(
            source.choice(("utf-8", "utf-16le"))
        )
    else:
        member.packed = member.content(int(member.both["method"])) + _gap(source)


def _gap(source: random.Random) -> bytes:
    return source.choice((b"\0", b"PK\7\x08" + bytes(12), zip_of([Odd("x.pth", b"import x")])))


def with_checksums(data: bytes) -> bytes:
    """A tar archive whose headers have right checksums, so that more than these are looked at."""
    changed = bytearray(data)
    for at in tar_headers(data):
        block = changed[at : at + TAR_BLOCK]
        block[148:156] = b" " * 8
        changed[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(changed)


def _with_record(members: Members) -> Members:
    """The members with a RECORD that is right."""
    names = [info.filename for info, _ in members if info.filename.endswith(".dist-info/RECORD")]
    record = names[0] if names else RECORD
    kept = [(info, data) for info, data in members if info.filename != record]
    text = record_of(record, ((info.filename, data) for info, data in kept))
    return [*kept, (zipfile.ZipInfo(record), text)]


def record_of(record: str, files: Iterable[tuple[str, bytes]]) -> bytes:
    """What a RECORD of this name says of these files."""
    rows = []
    for name, data in files:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f'"{name}",sha256={digest},{len(data)}\n')
    return "".join([*rows, f"{record},,\n"]).encode("utf-8", "surrogatepass")
