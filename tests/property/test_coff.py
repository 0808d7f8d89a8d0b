"""COFF objects that are encoded here are read back the same, and stay so when they are edited."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from fatwheel.fatbin.coff import read_coff, replace_section

INITIALIZED, UNINITIALIZED = 0x40, 0x80
FATBIN = ".nv_fatb"
BIG_CLASS = bytes.fromhex("c7a1bad1eebaa94baf20faf66aa4dcb8")


@dataclass(frozen=True)
class Part:
    """A section to encode: reserved bytes are those it has in memory only, a gap is before it."""

    name: str
    data: bytes
    relocations: bytes
    reserved: int
    gap: int


@dataclass(frozen=True)
class Sample:
    """An object's sections, whether its header is the big one, and whether it has checksums."""

    sections: tuple[Part, ...]
    big: bool
    checked: bool
    symbols_first: bool

    def with_fatbin(self, data: bytes) -> Sample:
        changed = (replace(s, data=data) if s.name == FATBIN else s for s in self.sections)
        return replace(self, sections=tuple(changed))


NAMES = st.sampled_from([".text", ".data", "eight888", ".a_long_name", "another long name", ".é"])


@st.composite
def sections(draw: st.DrawFn) -> Part:
    kind = draw(st.sampled_from(["plain", "plain", "relocated", "reserved", "empty"]))
    return Part(
        name=draw(NAMES),
        data=b"" if kind in ("reserved", "empty") else draw(st.binary(min_size=1, max_size=60)),
        relocations=draw(st.binary(min_size=30, max_size=30)) if kind == "relocated" else b"",
        reserved=draw(st.integers(1, 2**32 - 1)) if kind == "reserved" else 0,
        gap=draw(st.integers(0, 3)),
    )


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    around = draw(st.lists(sections(), max_size=5))
    fatbin = Part(FATBIN, draw(st.binary(max_size=80)), b"", 0, draw(st.integers(0, 3)))
    place = draw(st.integers(0, len(around)))
    ordered = (*around[:place], fatbin, *around[place:])
    return Sample(ordered, draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))


def encode(sample: Sample) -> bytes:
    """The object, with gaps of up to three bytes between its parts as some compilers leave."""
    count = len(sample.sections)
    symbols, strings = encode_symbols(sample)
    start = end = (56 if sample.big else 20) + 40 * count
    tables = symbols + strings
    if sample.symbols_first:
        end += len(tables)
    rows = contents = b""
    for part in sample.sections:
        gap = 0 if part.reserved else part.gap
        rows += encode_header(part, end + gap, strings)
        contents += bytes(gap) + part.data + part.relocations
        end += gap + len(part.data + part.relocations)
    symbols_at = start if sample.symbols_first else end
    body = tables + contents if sample.symbols_first else contents + tables
    if sample.big:
        fields = (0, 0xFFFF, 2, 0x8664, 0, BIG_CLASS, 0, 0, 0, 0, count, symbols_at, 2 * count)
        return struct.pack("<HHHHI16sIIIIIII", *fields) + rows + body
    return struct.pack("<HHIIIHH", 0x8664, count, 0, symbols_at, 2 * count, 0, 0) + rows + body


def encode_header(part: Part, offset: int, strings: bytes) -> bytes:
    name = part.name.encode()
    if len(name) > 8:
        name = f"/{strings.index(name + bytes(1), 4)}".encode()
    size = part.reserved or len(part.data)
    relocations = offset + len(part.data) if part.relocations else 0
    count = len(part.relocations) // 10
    flags = UNINITIALIZED if part.reserved else INITIALIZED
    offset = 0 if part.reserved else offset
    return struct.pack("<8s6I2HI", name, 0, 0, size, offset, relocations, 0, count, 0, flags)


def encode_symbols(sample: Sample) -> tuple[bytes, bytes]:
    """For each section its own symbol with one auxiliary record; and all names as long ones."""
    symbols = b""
    names = b""
    for index, part in enumerate(sample.sections, start=1):
        size = part.reserved or len(part.data)
        crc = zlib.crc32(part.data, 0xFFFFFFFF) ^ 0xFFFFFFFF if sample.checked else 0
        symbol = struct.pack("<8sI", b".x", 0) + struct.pack("<I" if sample.big else "<H", index)
        symbol += struct.pack("<HBB", 0, 3, 1)
        record = struct.pack("<IHHIHB", size, len(part.relocations) // 10, 0, crc, 0, 0)
        symbols += symbol + record.ljust(len(symbol), b"\0")
        names += part.name.encode() + b"\0"
    return symbols, struct.pack("<I", 4 + len(names)) + names


def read(data: bytes) -> list[tuple[str, bytes, bytes, int]]:
    coff = read_coff(data)
    return [
        (
            section.name,
            bytes(coff.content(section)),
            bytes(coff.relocations(section)),
            0 if section.in_file == section.size else section.size,
        )
        for section in coff.sections
    ]


def meaning(sample: Sample) -> list[tuple[str, bytes, bytes, int]]:
    return [(s.name, s.data, s.relocations, s.reserved) for s in sample.sections]


@given(samples())
def test_what_was_written_is_read(sample: Sample) -> None:
    data = encode(sample)
    assert read(data) == meaning(sample)
    assert replace_section(data, {}) == data
    definitions = [symbol for symbol in read_coff(data).symbols() if symbol.defines_section]
    assert [symbol.section for symbol in definitions] == [*range(1, len(sample.sections) + 1)]


@given(samples(), st.binary(max_size=100), st.binary(max_size=100))
def test_replacing_a_section_changes_only_that_section(
    sample: Sample, one: bytes, other: bytes
) -> None:
    data = encode(sample)
    changed = replace_section(data, {FATBIN: one})
    assert read(changed) == meaning(sample.with_fatbin(one))
    # However often it was edited before, and with what.
    assert replace_section(changed, {FATBIN: other}) == replace_section(data, {FATBIN: other})


@given(samples(), st.binary(max_size=25))
def test_the_result_is_what_would_have_been_encoded(sample: Sample, quarter: bytes) -> None:
    """Pointers, lengths and checksums included, where the size changes in steps of 4."""
    (old,) = [part.data for part in sample.sections if part.name == FATBIN]
    new = quarter * 4 + old[: len(old) % 4]
    expected = encode(sample.with_fatbin(new))
    checks = [s.data for s in sample.sections if s.name != FATBIN and s.data]
    if checks or not sample.checked:
        assert replace_section(encode(sample), {FATBIN: new}) == expected
