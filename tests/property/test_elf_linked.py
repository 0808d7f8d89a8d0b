"""Any linked ELF file, given any device code, any number of times.

The files are programs encoded here, with their device code anywhere in a segment of any size,
and with pages as large as any linker claims; a small loader, written here, says what they hold.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from fatwheel.decoders import may_have_kernels
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.fatbin.elf import read_elf
from fatwheel.fatbin.elf_linked import rewrite_linked

BASE, PAGE = 0x400000, 0x1000
Images = Sequence[Sequence[bytes]]


@dataclass(frozen=True)
class Sample:
    """A program; where its own bytes are loaded to, and where its wrappers are."""

    data: bytes = field(repr=False)
    host: tuple[tuple[int, bytes], ...] = field(repr=False)
    wrappers: int
    containers: int


def entry(size: int, fill: int) -> bytes:
    payload = bytes([fill]) * size * 8
    header = (2, 0x101, 64, len(payload), 0, 0, 0, 0, 80, 0, 0, 0x11, 0, 0)
    return struct.pack("<HHIQIIHHIIIQQQ", *header) + payload


images = st.builds(entry, st.integers(0, 1500), st.integers(1, 255))


def contents(count: int) -> st.SearchStrategy[Images]:
    return st.lists(st.lists(images, max_size=3), min_size=count, max_size=count)


def container(raw: Sequence[bytes]) -> bytes:
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, sum(map(len, raw))) + b"".join(raw)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Three segments: headers; other data around device code; wrappers, data and zeros."""
    count = draw(st.integers(1, 3))
    align = draw(st.sampled_from([PAGE, PAGE, 0x10000, 0x200000]))
    head, tail = (b"h" * draw(st.integers(0, 9000)) for _ in range(2))
    gap = draw(st.integers(0, 3)) * 8
    code, places = b"", []
    for raw in draw(contents(count)):
        places.append(len(code))
        code += container(raw) + bytes(gap)
    out = bytearray(64 + 56 * 3)
    loads = [(0, BASE, len(out), len(out), 4)]

    def segment(body: bytes, zeros: int, flags: int) -> int:
        """Append a segment, its offset congruent to its address; gives the address."""
        end = loads[-1][1] + loads[-1][3]
        address = -(-end // align) * align + len(out) % align
        loads.append((len(out), address, len(body), len(body) + zeros, flags))
        out.extend(body)
        return address

    pad = bytes(-(len(out) + len(head)) % 8)
    middle = segment(head + pad + code + tail, 0, 4)
    start = middle + len(head + pad)
    out += bytes(-len(out) % 8)
    wrappers = b"".join(struct.pack("<IIQQ", 0x466243B1, 1, start + p, 0) for p in places)
    data = segment(wrappers + b"d" * draw(st.integers(0, 5000)), draw(st.integers(0, 9000)), 6)
    names = b"\0.nv_fatbin\0.nvFatBinSegment\0.shstrtab\0"
    sections = [
        (1, 1, 2, start, loads[1][0] + len(head + pad), len(code), 0, 0, 8, 0),
        (12, 1, 3, data, loads[2][0], len(wrappers), 0, 0, 8, 0),
        (29, 3, 0, 0, len(out), len(names), 0, 0, 1, 0),
    ]
    out += names
    out += bytes(-len(out) % 8)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = (2, 62, 1, BASE, 64, len(out), 0, 64, 56, len(loads), 64, 4, 3)
    out[:64] = identity + struct.pack("<HHIQQQIHHHHHH", *header)
    for index, (offset, address, size, memory, flags) in enumerate(loads):
        fields = (1, flags, offset, address, address, size, memory, align)
        struct.pack_into("<IIQQQQQQ", out, 64 + 56 * index, *fields)
    host = ((middle, head), (start + len(code), tail), (data + len(wrappers), out[
        loads[2][0] + len(wrappers) : loads[2][0] + loads[2][2]
    ]))  # fmt: skip
    out += bytes(64) + b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in sections)
    return Sample(bytes(out), tuple((a, bytes(b)) for a, b in host if b), data, count)


def loaded(data: bytes) -> dict[int, bytes]:
    """Each page that a system would map, by its address: whole pages of the file."""
    offset, count = (
        struct.unpack_from("<Q16xHH", data, 32)[0],
        struct.unpack_from("<H", data, 56)[0],
    )
    pages: dict[int, bytes] = {}
    before = 0
    for index in range(count):
        kind, _, start, address, _, size, memory, align = struct.unpack_from(
            "<IIQQQQQQ", data, offset + 56 * index
        )
        if kind != 1:
            continue
        assert memory >= size
        assert memory > 0
        assert (address - start) % align == 0
        assert align % PAGE == 0
        assert start + size <= len(data)
        first = address // PAGE * PAGE
        assert first >= before, "two segments would share a page"
        before = -(-(address + memory) // PAGE) * PAGE
        for page in range(first, address + size, PAGE):
            place = start - (address - page)
            pages[page] = data[place : place + PAGE].ljust(PAGE, b"\0")
    return pages


def memory(pages: dict[int, bytes], address: int, size: int) -> bytes:
    first, last = address // PAGE * PAGE, address + size
    row = b"".join(pages[page] for page in range(first, last, PAGE))
    return row[address - first : address - first + size]


def entries(raw: Images) -> list[tuple[Entry, ...]]:
    return [parse_containers(container(each))[0].entries for each in raw]


def rewritten(data: bytes, raw: Images) -> bytes:
    return b"".join(rewrite_linked(read_elf(data), entries(raw), may_have_kernels).pieces)


@given(st.data(), samples())
def test_programs_stay_what_they_are(data: st.DataObject, sample: Sample) -> None:
    raw = data.draw(contents(sample.containers))
    changed = rewritten(sample.data, raw)
    pages = loaded(changed)
    for address, content in sample.host:
        assert memory(pages, address, len(content)) == content
    for index, each in enumerate(raw):
        wrapper = memory(pages, sample.wrappers + 24 * index, 24)
        magic, version, target, _ = struct.unpack("<IIQQ", wrapper)
        assert (magic, version) == (0x466243B1, 1)
        assert memory(pages, target, len(container(each))) == container(each)
    most = sum(len(container(each)) for each in raw) + sum(len(c) for _, c in sample.host)
    assert len(changed) <= most + 3 * PAGE + 1024, "dead bytes remain"


@given(st.data(), samples())
def test_a_rewritten_file_does_not_tell_what_it_was(data: st.DataObject, sample: Sample) -> None:
    first, second = (data.draw(contents(sample.containers)) for _ in range(2))
    assert rewritten(rewritten(sample.data, first), second) == rewritten(sample.data, second)
