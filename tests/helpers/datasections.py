"""Libraries and objects that hold device code among their data, put together by hand: ELF from the
System V ABI, PE and COFF from Microsoft's "PE Format"."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from . import peimages


def elf_library(sections: Mapping[str, bytes], *, tail: bytes = b"") -> bytes:
    """A library of Linux with these sections; tail lies between them and their table."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in sections) + b".shstrtab\0"
    body, headers = b"", bytes(64)
    for name, content in (*sections.items(), (".shstrtab", names)):
        place = names.index(b"\0" + name.encode() + b"\0") + 1
        kind = 3 if name == ".shstrtab" else 1
        row = (place, kind, 2, 0, 64 + len(body), len(content), 0, 0, 1, 0)
        headers += struct.pack("<IIQQQQIIQQ", *row)
        body += content
    body += tail
    count = len(sections) + 2
    fields = (3, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64, count, count - 1)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", *fields)
    return header + body + headers


def pe_library(sections: Mapping[str, bytes]) -> bytes:
    """A library of Windows with these sections."""
    parts, address = [], 0x1000
    for name, content in sections.items():
        parts.append(peimages.Part(name, address, content))
        address += peimages.aligned(len(content) + 1, 4096)
    return peimages.Image(parts).write()


def coff_object(sections: Mapping[str, bytes]) -> bytes:
    """An object of Windows with these sections, whose names have 8 characters at most."""
    start = 20 + 40 * len(sections)
    table, body = b"", b""
    for name, content in sections.items():
        row = (name.encode(), 0, 0, len(content), start + len(body), 0, 0, 0, 0, 0xC0000040)
        table += struct.pack("<8sIIIIIIHHI", *row)
        body += content
    header = struct.pack("<HHIIIHH", 0x8664, len(sections), 0, start + len(body), 0, 0, 0)
    return header + table + body + struct.pack("<I", 4)
