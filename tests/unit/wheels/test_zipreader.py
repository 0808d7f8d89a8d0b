"""The zip reader: what honest tools write is read, and what two readers could see differently is
refused, each by the section of APPNOTE 6.3.10 that it bends."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib

import pytest

from fatwheel.errors import FormatError
from fatwheel.wheels.zipreader import pieces, read_entries, start_of, stored_pieces

from ...helpers.oddzips import DESCRIPTOR, MAX32, Odd, extra, unicode_path, zip_of

TEXT = b"import this\n" * 20
TIMES = extra(0x5455, b"\x03" + bytes(8)) + extra(0x7875, b"\x01\x04\0\0\0\0\x04\0\0\0\0")


def contents(data: bytes) -> dict[str, bytes]:
    stream = io.BytesIO(data)
    return {entry.name: b"".join(pieces(stream, entry)) for entry in read_entries(stream)}


def wide(*values: int) -> bytes:
    return extra(1, struct.pack(f"<{len(values)}Q", *values))


A = Odd("a.py", TEXT)
PACKED = len(A.content(8))

HONEST = {
    "deflated": [A, Odd("b.py", b"2")],
    "stored": [Odd("a.py", TEXT, both={"method": 0})],
    "an empty file": [Odd("a.py", TEXT), Odd("empty", both={"method": 0})],
    "a folder, as with Windows' tools": [Odd("d/", both={"method": 0, "attributes": 0x10}), A],
    "a deflated folder": [Odd("d/"), A],
    "a name in UTF-8": [Odd("größe.py", TEXT)],
    "an ASCII name marked as UTF-8": [Odd("a.py", TEXT, both={"flags": 0x800})],
    "deflate options": [Odd("a.py", TEXT, both={"flags": 0x6})],
    "written as a stream": [
        Odd("a.py", TEXT, after="descriptor"),
        Odd("b", b"2", after="descriptor"),
    ],
    "a descriptor without magic": [Odd("a.py", TEXT, after="plain"), Odd("b", b"2")],
    "a stream with zip64": [
        Odd("a.py", TEXT, after="wide", local={"stored": MAX32, "size": MAX32, "extra": wide(0, 0)})
    ],
    "a stored stream whose header has the sizes": [
        Odd(
            "a.py",
            TEXT,
            after="descriptor",
            both={"method": 0},
            local={"crc": zlib.crc32(TEXT), "stored": len(TEXT), "size": len(TEXT)},
        )
    ],
    "times and owners, longer in the local header": [
        Odd(
            "a.py",
            TEXT,
            local={"extra": TIMES},
            central={"extra": extra(0x5455, b"\x03" + bytes(4))},
        )
    ],
    "room for alignment": [Odd("a.py", TEXT, local={"extra": extra(0xD935, bytes(30))})],
    "zip64 in the local header alone": [
        Odd("a.py", TEXT, local={"stored": MAX32, "size": MAX32, "extra": wide(len(TEXT), PACKED)})
    ],
    "sizes in the local header and once more in its zip64": [
        Odd("a.py", TEXT, local={"extra": wide(len(TEXT), PACKED)})
    ],
    "zip64 in both": [
        Odd("a.py", TEXT, both={"stored": MAX32, "size": MAX32, "extra": wide(len(TEXT), PACKED)})
    ],
    "a time that is none": [Odd("a.py", TEXT, both={"moment": 0})],
}


@pytest.mark.parametrize("kind", HONEST)
def test_what_honest_tools_write_is_read(kind: str) -> None:
    data = zip_of(HONEST[kind])
    assert contents(data) == {member.name: member.data for member in HONEST[kind]}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:  # the sample is sound
        assert archive.testzip() is None


def test_zip64_end_records_are_read() -> None:
    short = {"here": 0xFFFF, "count": 0xFFFF, "size": MAX32, "offset": MAX32}
    assert contents(zip_of([A], zip64={}, **short)) == contents(zip_of([A], zip64={}))


def test_parts_of_a_member() -> None:
    stream = io.BytesIO(zip_of([A]))
    [entry] = read_entries(stream)
    assert start_of(stream, entry, 5) == TEXT[:5]
    assert start_of(stream, entry, 9999) == TEXT
    assert b"".join(stored_pieces(stream, entry, 3)) == A.content(8)
    assert entry.time == (1980, 1, 1, 0, 0, 0)


MESSAGES = {
    "extra": "extra field 0x",
    "broken": "extra fields are damaged",
    "differ": "header and the archive's directory differ",
    "behind": "bytes behind it",
    "sizes": "sizes and its zip64 field",
    "name": "readers decode differently",
    "overlap": "overlaps another or is misplaced",
    "cut": "cut off, or something follows",
    "count": "count of members",
    "alien": "bytes that do not belong",
    "parts": "several parts|another part",
    "end": "zip64 end record is damaged",
    "ends": "end records of the zip archive differ",
    "damaged": "the member is damaged",
}
ZIP_INSIDE = zip_of([Odd("a.py", b"evil")])
HOSTILE = {
    # 4.6.9, 4.6.8, 4.5.2, 4.6: another name, another comment, a link, encryption, what nobody knows
    "a second name in the directory": (
        "extra",
        [Odd("a.py", TEXT, central={"extra": unicode_path("x.pth", "a.py")})],
    ),
    "a second name in the header": (
        "extra",
        [Odd("a.py", TEXT, local={"extra": unicode_path("x.pth", "a.py")})],
    ),
    "a second comment": (
        "extra",
        [Odd("a.py", TEXT, central={"extra": unicode_path("x", "", 0x6375)})],
    ),
    "a link of ASi Unix": ("extra", [Odd("a.py", TEXT, both={"extra": extra(0x756E, bytes(14))})]),
    "AES": ("extra", [Odd("a.py", TEXT, both={"extra": extra(0x9901, b"\2\0AE\3\x08\0")})]),
    "an unknown field": ("extra", [Odd("a.py", TEXT, both={"extra": extra(0x1234, b"")})]),
    # 4.5.1: fields that overrun, are cut off, or there twice
    "a field that overruns": ("broken", [Odd("a.py", TEXT, both={"extra": b"\x55\x54\xff\xff"})]),
    "a field that is cut off": ("broken", [Odd("a.py", TEXT, both={"extra": b"\0\0\0"})]),
    "a field twice": ("broken", [Odd("a.py", TEXT, both={"extra": extra(0x5455, b"") * 2})]),
    # 4.5.3: zip64 that is missing, too much, or another size
    "no zip64": ("sizes", [Odd("a.py", TEXT, central={"size": MAX32})]),
    "zip64 without need": ("sizes", [Odd("a.py", TEXT, central={"extra": wide(5)})]),
    "zip64 for one of two": (
        "sizes",
        [Odd("a.py", TEXT, local={"stored": MAX32, "size": MAX32, "extra": wide(len(TEXT))})],
    ),
    "another size in zip64": (
        "differ",
        [Odd("a.py", TEXT, local={"stored": MAX32, "size": MAX32, "extra": wide(1, PACKED)})],
    ),
    "other sizes than in zip64": ("sizes", [Odd("a.py", TEXT, local={"extra": wide(1, PACKED)})]),
    # appendix D: names
    "code page 437": ("name", [Odd("a.py", TEXT, both={"name": b"caf\x82"})]),
    "UTF-8 without its flag": ("name", [Odd("a.py", TEXT, both={"name": "café".encode()})]),
    "no UTF-8": ("name", [Odd("a.py", TEXT, both={"name": b"caf\xe9", "flags": 0x800})]),
    # 4.3.7 against 4.3.12: local headers that differ
    "another name": ("differ", [Odd("a.py", TEXT, local={"name": b"b.py"})]),
    "other flags": ("differ", [Odd("a.py", TEXT, local={"flags": 0x800})]),
    "another method": ("differ", [Odd("a.py", TEXT, local={"method": 0})]),
    "another time": ("differ", [Odd("a.py", TEXT, local={"moment": 0})]),
    "another checksum": ("differ", [Odd("a.py", TEXT, local={"crc": 1})]),
    "another size": ("differ", [Odd("a.py", TEXT, local={"size": 1})]),
    "no sizes, and none that follow": (
        "differ",
        [Odd("a.py", TEXT, local={"crc": 0, "stored": 0, "size": 0})],
    ),
    # 4.3.9: descriptors
    "another descriptor": (
        "behind",
        [Odd("a.py", TEXT, after=DESCRIPTOR + bytes(12), both={"flags": 8})],
    ),
    "no descriptor": ("behind", [Odd("a.py", TEXT, both={"flags": 8})]),
    "a descriptor that no flag tells of": (
        "behind",
        [
            Odd(
                "a.py",
                TEXT,
                after=DESCRIPTOR + struct.pack("<III", zlib.crc32(TEXT), PACKED, len(TEXT)),
                local={"crc": zlib.crc32(TEXT), "stored": PACKED, "size": len(TEXT)},
            )
        ],
    ),
    "a wide descriptor without zip64": ("behind", [Odd("a.py", TEXT, after="wide")]),
    "a stored stream": (
        "cannot tell|its size comes behind",
        [Odd("a.py", TEXT, after="descriptor", both={"method": 0})],
    ),
    # 4.3.6: members in a row, and nothing between
    "a gap": (
        "behind",
        [
            Odd(
                "a.py",
                TEXT,
                after=bytes(9),
                local={"crc": zlib.crc32(TEXT), "stored": PACKED, "size": len(TEXT)},
            ),
            Odd("b", b"2"),
        ],
    ),
    "an archive in a gap": (
        "behind",
        [
            Odd(
                "a.py",
                TEXT,
                after=ZIP_INSIDE,
                local={"crc": zlib.crc32(TEXT), "stored": PACKED, "size": len(TEXT)},
            )
        ],
    ),
    "members that overlap": ("overlap", [Odd("a.py", TEXT), Odd("b", TEXT, central={"offset": 0})]),
    "bytes before": ("before the first", [Odd("a.py", TEXT, central={"offset": 1})]),
    # 4.4.4, 4.4.5: flags and methods
    "newer than the format": ("version 212", [Odd("a.py", TEXT, both={"needs": 212})]),
    "newer in the header alone": ("differ", [Odd("a.py", TEXT, local={"needs": 64})]),
    "encrypted": ("encrypted", [Odd("a.py", TEXT, both={"flags": 1})]),
    "patched": ("flags 0x0020", [Odd("a.py", TEXT, both={"flags": 0x20})]),
    "deflate64": ("method 9", [Odd("a.py", TEXT, both={"method": 9})]),
    # 4.3.12: comments and disks
    "a comment with a directory in it": (
        "comment",
        [Odd("a.py", TEXT, central={"comment": ZIP_INSIDE})],
    ),
    "another disk": ("parts", [Odd("a.py", TEXT, central={"disk": 1})]),
    # content
    "more behind the end of the stream": (
        "damaged",
        [Odd("a.py", TEXT, packed=A.content(8) + b"more")],
    ),
    "a stream without end": ("damaged", [Odd("a.py", TEXT, packed=A.content(8)[:-4])]),
    "no stream": ("damaged", [Odd("a.py", TEXT, packed=b"\xff\xff")]),
    "fewer bytes than it says": ("damaged", [Odd("a.py", TEXT, both={"size": 999})]),
    "more bytes than it says": ("damaged", [Odd("a.py", TEXT, both={"size": 9})]),
    "a wrong checksum": ("damaged", [Odd("a.py", TEXT, both={"crc": 9})]),
}


def refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=MESSAGES.get(message, message)):
        contents(data)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_two_readers_could_see_differently_is_refused(kind: str) -> None:
    message, members = HOSTILE[kind]
    refused(zip_of(members), message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"comment": b"x"}, "cut"),
        ({"comment": ZIP_INSIDE}, "alien"),
        ({"before_directory": ZIP_INSIDE}, "behind"),
        ({"in_directory": b"PK\5\5\0\0"}, "count"),
        ({"count": 2, "here": 2}, "damaged at member 1"),
        ({"count": 0, "here": 0}, "count"),
        ({"here": 0}, "count"),
        ({"disk": 1}, "parts"),
        ({"first_disk": 1}, "parts"),
        ({"offset": 1}, "alien"),
        ({"zip64": {"here": 2, "count": 2}}, "ends"),
        ({"zip64": {"offset": 0}}, "ends"),
        ({"zip64": {"disks": 2}}, "end"),
        ({"zip64": {"at": 0}}, "end"),
        ({"size": MAX32, "offset": MAX32}, "accepted|lists"),
    ],
)
def test_what_the_end_may_not_say(fields: dict[str, object], message: str) -> None:
    refused(zip_of([A], **fields), message)


def test_the_end_record_is_the_last_place_that_looks_like_one() -> None:
    """Some readers look for it from the end: here they find one within it, 4 bytes on."""
    data = bytearray(zip_of([A]))
    data[-10:-6] = b"PK\5\6"
    refused(bytes(data), "cut")


def test_the_second_name_is_believed_by_some_pythons_and_not_by_others() -> None:
    """Why names must not be left to zipfile: from 3.13 (and 3.12.1) on it takes the other one."""
    data = zip_of([Odd("a.py", TEXT, central={"extra": unicode_path("x.pth", "a.py")})])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == (["x.pth"] if sys.version_info >= (3, 12, 1) else ["a.py"])
    refused(data, "extra field 0x7075")
