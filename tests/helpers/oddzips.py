"""Zip archives with every field at hand, written without zipfile or fatwheel."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAX32 = 0xFFFFFFFF
DESCRIPTOR = b"PK\x07\x08"


def extra(number: int, data: bytes) -> bytes:
    return struct.pack("<HH", number, len(data)) + data


def unicode_path(name: str, of: str, number: int = 0x7075) -> bytes:
    """The field that gives a member another name: APPNOTE 4.6.9; 0x6375 is a comment, 4.6.8."""
    return extra(number, struct.pack("<BI", 1, zlib.crc32(of.encode())) + name.encode())


@dataclass
class Odd:
    """A member. local and central replace fields of one header, both those of both.

    Fields: name, needs, flags, method, moment, crc, stored, size, extra; in the directory also
    comment, disk, attributes, offset. after: what follows the content; "descriptor" and "plain"
    for sizes and checksum with and without a magic number, "wide" for those of zip64.
    """

    name: str
    data: bytes = b""
    packed: bytes | None = None
    after: bytes | str = b""
    both: dict[str, Any] = field(default_factory=dict)
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)

    def content(self, method: int) -> bytes:
        if self.packed is not None:
            return self.packed
        if method == 0:
            return self.data
        deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        return deflater.compress(self.data) + deflater.flush()


def zip_of(
    members: Sequence[Odd], *, before_directory: bytes = b"", in_directory: bytes = b"", **end: Any
) -> bytes:
    """end: disk, first_disk, here, count, size, offset, comment of the end record; zip64: an end
    record of zip64, with these fields replaced."""
    out, directory = b"", b""
    for member in members:
        base = {"name": member.name.encode(), "flags": 0 if member.name.isascii() else 0x800,
                "method": 8, "needs": 20, "moment": 0x21 << 16, "extra": b"",
                "comment": b"", "disk": 0, "attributes": 0o100644 << 16,
                "offset": len(out)} | member.both  # fmt: skip
        content = member.content(base["method"])
        base = {"crc": zlib.crc32(member.data), "stored": len(content),
                "size": len(member.data)} | base  # fmt: skip
        described = {"crc": 0, "stored": 0, "size": 0} if member.after else {}
        flags = {"flags": base["flags"] | 8} if isinstance(member.after, str) else {}
        one, other = base | flags | described | member.local, base | flags | member.central
        out += b"PK\3\4" + struct.pack("<HHHIIIIHH", one["needs"], one["flags"], one["method"],
            one["moment"], one["crc"], one["stored"], one["size"], len(one["name"]),
            len(one["extra"]))  # fmt: skip
        out += one["name"] + one["extra"] + content + _after(member, base)
        directory += b"PK\1\2" + struct.pack("<BBHHHIIIIHHHHHII", 20, 3, other["needs"],
            other["flags"], other["method"], other["moment"], other["crc"], other["stored"],
            other["size"], len(other["name"]), len(other["extra"]), len(other["comment"]),
            other["disk"], 0,
            other["attributes"], other["offset"])  # fmt: skip
        directory += other["name"] + other["extra"] + other["comment"]
    out += before_directory
    directory += in_directory
    count = len(members)
    usual = {"disk": 0, "first_disk": 0, "here": count, "count": count, "size": len(directory),
             "offset": len(out), "comment": b""}  # fmt: skip
    wide = _end64(usual | end["zip64"], len(out) + len(directory)) if "zip64" in end else b""
    last = usual | end
    numbers = [last[name] for name in _NUMBERS]
    return (
        out + directory + wide + b"PK\5\6"
        + struct.pack("<HHHHIIH", *numbers, len(last["comment"])) + last["comment"]
    )  # fmt: skip


_NUMBERS = ("disk", "first_disk", "here", "count", "size", "offset")


def _end64(fields: dict[str, Any], at: int) -> bytes:
    record = struct.pack("<QHHIIQQQQ", 44, 45, 45, *(fields[name] for name in _NUMBERS))
    locator = struct.pack("<IQI", 0, fields.get("at", at), fields.get("disks", 1))
    return b"PK\6\6" + record + b"PK\6\7" + locator


def _after(member: Odd, base: dict[str, Any]) -> bytes:
    if isinstance(member.after, bytes):
        return member.after
    numbers = (base["crc"], base["stored"], base["size"])
    plain = struct.pack("<IQQ" if member.after == "wide" else "<III", *numbers)
    return plain if member.after == "plain" else DESCRIPTOR + plain
