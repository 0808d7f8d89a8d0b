"""PE images put together by hand, from Microsoft's "PE Format", and fatbins to put into them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import lief

from fatwheel.fatbin.container import Entry, parse_containers

BASE = 0x180000000
CODE, DATA, WRITABLE = 0x60000020, 0x40000040, 0xC0000040
HEADERS = 0x400
OPTIONAL = 24 + 216  # a PE32+ optional header with all 16 directories


@dataclass(frozen=True)
class Part:
    """A section: where it is loaded, and what is there."""

    name: str
    address: int
    content: bytes
    flags: int = DATA

    @property
    def padded(self) -> bytes:
        return self.content + bytes(-len(self.content) % 512)


@dataclass(frozen=True)
class Image:
    """What a linker would be asked to write.

    room: bytes between the section table and the end of the headers; what there begins with is
    gap. tail follows the sections, the symbol table at its start if symbols says so; the
    signature is last.
    """

    parts: Sequence[Part]
    directories: dict[int, tuple[int, int]] = field(default_factory=dict)
    machine: int = 0x8664
    flags: int = 0x2022
    dll_flags: int = 0x160
    checksum: int = 0
    room: int = 80
    gap: bytes = b""
    tail: bytes = b""
    symbols: bool = False
    signature: bytes = b""

    def offset(self, name: str) -> int:
        """Where a section's bytes stand in the file."""
        position = HEADERS
        for part in self.parts:
            if part.name == name:
                return position
            position += len(part.padded)
        raise AssertionError(f"no part {name}")

    def write(self) -> bytes:
        table = HEADERS - self.room - 40 * len(self.parts)
        start = table - OPTIONAL - 24
        end = HEADERS + sum(len(part.padded) for part in self.parts)
        directories = dict(self.directories)
        if self.signature:
            directories[4] = (end + len(self.tail), len(self.signature))
        last = self.parts[-1]
        head = struct.pack("<2s58xI", b"MZ", start).ljust(start, b"\0") + b"PE\0\0"
        head += struct.pack(
            "<HHIIIHH", self.machine, len(self.parts), 0x5F000000, end if self.symbols else 0,
            len(self.tail) // 18 if self.symbols else 0, OPTIONAL, self.flags,
        )  # fmt: skip
        head += struct.pack(
            "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII", 0x20B, 14, 0, 512,
            sum(len(part.padded) for part in self.parts if part.flags & 0x40), 0, 0, 0x1000, BASE,
            4096, 512, 6, 0, 0, 0, 6, 0, 0, aligned(last.address + len(last.content), 4096),
            HEADERS, self.checksum, 2, self.dll_flags, 1 << 20, 4096, 1 << 20, 4096, 0, 16,
        )  # fmt: skip
        for index in range(16):
            head += struct.pack("<II", *directories.get(index, (0, 0)))
        position = HEADERS
        for part in self.parts:
            head += struct.pack(
                "<8sIIIIIIHHI", part.name.encode(), len(part.content), part.address,
                len(part.padded), position, 0, 0, 0, 0, part.flags,
            )  # fmt: skip
            position += len(part.padded)
        assert len(head) == HEADERS - self.room, "the helper miscounts"
        head += self.gap.ljust(self.room, b"\0")
        return head + b"".join(p.padded for p in self.parts) + self.tail + self.signature


def library(*containers: Sequence[Entry], last: bool = False, spare: bytes = b"") -> Image:
    """A library with these containers, a wrapper for each, imports, exports and debug data.

    The device code lies in the middle, or is the last section; spare bytes follow it.
    """
    blobs = [container(entries) for entries in containers]
    starts = [sum(len(blob) for blob in blobs[:index]) for index in range(len(blobs))]
    code = Part(".nv_fatb", 0, b"".join(blobs) + spare)
    read_only, directories = tables(0x2000)
    parts = [Part(".text", 0x1000, b"\xc3", CODE), Part(".rdata", 0x2000, read_only)]
    fatbin = 0x5000 if last else 0x3000
    behind = 0x3000 if last else aligned(0x3000 + len(code.content), 4096)
    wrappers = b"".join(
        struct.pack("<IIQQ", 0x466243B1, 1, BASE + fatbin + start, 0) for start in starts
    )
    places = [behind + 24 * index + 8 for index in range(len(blobs))]
    relocations = relocation_table([0x2000 + DEBUG_SIZE, *places])
    directories[5] = (behind + 0x1000, len(relocations))
    others = [
        Part(".nvFatBi", behind, wrappers),
        Part(".reloc", behind + 0x1000, relocations, 0x42000040),
    ]
    moved = replace(code, address=fatbin)
    parts += [*others, moved] if last else [moved, *others]
    whole = Image(parts, directories, tail=TAIL, symbols=True)
    return with_debug_offset(whole)


# .rdata begins with a debug directory of one entry, and a pointer that is no wrapper's.
DEBUG_SIZE = 28
DEBUG_DATA = b"RSDS" + bytes(range(20)) + b"library.pdb\0"
# Eight symbols of 18 bytes, an empty string table, and what somebody has appended.
TAIL = b"".join(b"symbol%d\0\0\0\0\0\0\0\0\0\0\0" % n for n in range(8)) + b"\4\0\0\0" + b"appendix"
IMPORTED, DELAYED, EXPORTED = ("one.dll", "TWO.dll"), ("later.dll",), ("alpha", "beta")


def tables(address: int) -> tuple[bytes, dict[int, tuple[int, int]]]:
    """Debug directory, a pointer, and tables of imports and exports, loaded at an address."""
    out = bytearray(0x300)

    def put(place: int, layout: str, *values: int | bytes) -> int:
        struct.pack_into(layout, out, place, *values)
        return address + place

    debug = put(0, "<IIHHIIII", 0, 0, 0, 0, 2, len(DEBUG_DATA), address + 0x280, 0)
    put(DEBUG_SIZE, "<Q", BASE + 0x1000)
    put(0x280, f"<{len(DEBUG_DATA)}s", DEBUG_DATA)
    name = put(0x200, "<H10s", 0, b"function")
    for index, library_ in enumerate(IMPORTED):
        thunks = put(0x220 + 16 * index, "<QQ", name, 0)
        put(0x40 + 20 * index, "<IIIII", thunks, 0, 0, address + 0x100 + 16 * index, thunks)
        put(0x100 + 16 * index, "<16s", library_.encode())
    thunks = put(0x240, "<QQ", name, 0)
    put(0x120, "<16s", DELAYED[0].encode())
    put(0x80, "<8I", 1, address + 0x120, address + 0x138, thunks, thunks, 0, 0, 0)
    put(0x180, "<8s8s12s", b"alpha", b"beta", b"library.dll")
    put(0x1A0, "<II", 0x1000, 0x1000)
    put(0x1A8, "<II", address + 0x180, address + 0x188)
    put(0x1B0, "<HH", 0, 1)
    put(
        0x150, "<IIHHIIIIIII", 0, 0, 0, 0, address + 0x190, 1, 2, 2,
        address + 0x1A0, address + 0x1A8, address + 0x1B0,
    )  # fmt: skip
    return bytes(out), {
        0: (address + 0x150, 40),
        1: (address + 0x40, 60),
        6: (debug, DEBUG_SIZE),
        13: (address + 0x80, 64),
    }


def with_debug_offset(image: Image) -> Image:
    """The image whose debug directory says where its data stands in the file."""
    parts = []
    for part in image.parts:
        content = bytearray(part.content)
        if part.name == ".rdata":
            struct.pack_into("<I", content, 24, image.offset(".rdata") + 0x280)
        parts.append(replace(part, content=bytes(content)))
    return replace(image, parts=parts)


def relocation_table(addresses: Sequence[int]) -> bytes:
    """One block for each page, all of type DIR64."""
    table = b""
    for page in sorted({address & ~0xFFF for address in addresses}):
        entries = [a & 0xFFF | 10 << 12 for a in sorted(addresses) if a & ~0xFFF == page]
        entries += [0] * (len(entries) % 2)
        table += struct.pack(f"<II{len(entries)}H", page, 8 + 2 * len(entries), *entries)
    return table


def entries(*images: tuple[int, bytes]) -> tuple[Entry, ...]:
    """Cubins, so to speak: architecture number and bytes, a multiple of 8."""
    header = struct.Struct("<HHIQIIHHIIIQQQ")
    raw = b"".join(
        header.pack(2, 0x101, 64, len(data), 0, 0, 7, 1, arch, 0, 0, 0x41, 0, 0) + data
        for arch, data in images
    )
    (found,) = parse_containers(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw)
    return found.entries


def container(images: Sequence[Entry]) -> bytes:
    raw = b"".join(bytes(image.raw) for image in images)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw


def checksum(data: bytes) -> int:
    """CheckSum as imagehlp computes it: 16-bit words with carries, the field itself left out."""
    field_at = int.from_bytes(data[60:64], "little") + 24 + 64
    blanked = data[:field_at] + bytes(4) + data[field_at + 4 :] + bytes(len(data) % 2)
    total = 0
    for (word,) in struct.iter_unpack("<H", blanked):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total + len(data)


def aligned(value: int, alignment: int) -> int:
    return (value + alignment - 1) // alignment * alignment


@lru_cache(64)
def parsed(data: bytes) -> lief.PE.Binary:
    """Kept, for LIEF's sections are views that do not keep their file alive."""
    binary = lief.PE.parse(list(data))
    assert binary is not None, "LIEF does not read it"
    return binary


def host_part(data: bytes) -> list[tuple[str, int, int, bytes]]:
    """All sections but device code: name, addresses, bytes without the wrappers' pointers."""
    rows = []
    for section in parsed(data).sections:
        content = bytearray(section.content)
        if section.name == ".nvFatBi":
            for place in range(8, section.virtual_size, 24):
                content[place : place + 8] = bytes(8)
        if section.name == ".rdata":
            content[24:28] = bytes(4)  # where debug data stands in the file: tested by itself
        if section.name != ".nv_fatb":
            rows.append(
                (section.name, section.virtual_address, section.virtual_size, bytes(content))
            )
    return rows


def importing(libraries: Sequence[str], function: str = "function") -> bytes:
    """A DLL that needs one function of each of these libraries."""
    start = 0x1000
    rows, body = b"", b""
    at = start + 20 * (len(libraries) + 1)
    for library in libraries:
        name = f"{function}\0".encode().rjust(len(function) + 3, b"\0")
        thunks = struct.pack("<QQ", at + 16, 0)
        piece = thunks + name + f"{library}\0".encode()
        rows += struct.pack("<IIIII", at, 0, 0, at + 16 + len(name), at)
        piece += bytes(-len(piece) % 8)
        body, at = body + piece, at + len(piece)
    content = rows + bytes(20) + body
    part = Part(".idata", start, content, WRITABLE)
    return Image([part], {1: (start, 20 * (len(libraries) + 1))}).write()
