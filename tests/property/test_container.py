"""Whatever can be written is read back the same; other libraries are the oracles."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import lz4.block
import pytest
import zstandard
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.decoders import payload
from fatwheel.errors import FormatError
from fatwheel.fatbin.container import Entry, parse_containers, write_container
from fatwheel.fatbin.elf import read_elf, replace_section

COMPRESSIONS = ("", "lz4", "zstd", "unknown")
KINDS = {1: "ptx", 2: "elf", 8: "lto"}
LZ4, ZSTD, ARCH_SPECIFIC, FAMILY_SPECIFIC = 0x2000, 0x8000, 0x100000, 0x200000


@dataclass(frozen=True)
class Meaning:
    """What must be read of an entry; image is None where nobody can know it."""

    kind: str
    arch: str
    flags: int
    header_size: int
    compression: str
    stored: int
    uncompressed: int
    image: bytes | None


@dataclass(frozen=True)
class Sample:
    """An entry encoded here, and what it means."""

    raw: bytes
    meaning: Meaning


@st.composite
def samples(draw: st.DrawFn, compressions: Sequence[str] = COMPRESSIONS) -> Sample:
    """Entries of every kind, known or not, with any flags, header and compression."""
    kind = draw(st.sampled_from(sorted(KINDS)) | st.integers(0, 2**16 - 1))
    number = draw(st.sampled_from([50, 75, 80, 90, 100, 121, 999]))
    header_size = draw(st.sampled_from([64, 72, 80, 96, 104, 112]) | st.integers(64, 300))
    flags = draw(st.sampled_from([0x11, 0x41, 0x1000013]) | st.integers(0, 2**64 - 1))
    image = draw(st.binary(max_size=300))
    compression = draw(st.sampled_from(compressions))
    stored, flags = compress(compression, image, flags)
    padding = draw(st.binary(max_size=16)) if compression else b""
    # The library's version, the options' offset, and the identifier's offset and length.
    unread = draw(st.lists(st.integers(0, 2**16 - 1), min_size=5, max_size=5))
    header = struct.pack(
        "<HHIQIIHHIIIQQQ",
        kind, 0x101, header_size, len(stored + padding), len(stored) if compression else 0,
        *unread[:3], number, *unread[3:], flags, 0, len(image),
    )  # fmt: skip
    extra = draw(st.binary(min_size=header_size - 64, max_size=header_size - 64))
    suffix = "f" if flags & FAMILY_SPECIFIC else "a" if flags & ARCH_SPECIFIC else ""
    meaning = Meaning(
        kind=KINDS.get(kind, "other"),
        arch=f"{number}{suffix}",
        flags=flags,
        header_size=header_size,
        compression=compression,
        stored=len(stored),
        uncompressed=len(image),
        image=None if compression == "unknown" else image,
    )
    return Sample(header + extra + stored + padding, meaning)


def compress(compression: str, image: bytes, flags: int) -> tuple[bytes, int]:
    """The image as it is stored, and the flags that say how; without compression any do."""
    neither = flags & ~(LZ4 | ZSTD)
    if compression == "lz4":
        return lz4.block.compress(image, store_size=False), neither | LZ4
    if compression == "zstd":
        return zstandard.ZstdCompressor().compress(image), flags | ZSTD
    if compression == "unknown":
        return b"?" + image, neither
    return image, flags


def meaning_of(entry: Entry) -> Meaning:
    return Meaning(
        kind=entry.kind,
        arch=entry.arch.name,
        flags=entry.flags,
        header_size=entry.header_size,
        compression=entry.compression,
        stored=entry.stored,
        uncompressed=entry.uncompressed,
        image=None if entry.compression == "unknown" else bytes(payload(entry)),
    )


def read_entries(row: list[Sample]) -> tuple[Entry, ...]:
    """The entries of a container that is put together here."""
    raw = b"".join(sample.raw for sample in row)
    (container,) = parse_containers(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw)
    return container.entries


@given(st.lists(samples(), max_size=6))
def test_a_written_container_is_read_back(row: list[Sample]) -> None:
    entries = read_entries(row)
    written = write_container(entries)
    raw = b"".join(sample.raw for sample in row)
    assert written == struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw
    (container,) = parse_containers(written)
    assert (container.offset, container.size) == (0, len(written))
    assert container.entries == entries
    assert [meaning_of(entry) for entry in container.entries] == [s.meaning for s in row]


@given(st.lists(st.tuples(st.lists(samples(), max_size=3), st.integers(0, 40)), max_size=5))
def test_containers_in_a_row_are_all_found(row: list[tuple[list[Sample], int]]) -> None:
    written = [write_container(read_entries(entries)) for entries, _ in row]
    section = b"".join(
        data + bytes(padding) for data, (_, padding) in zip(written, row, strict=True)
    )
    found = parse_containers(section)
    assert [section[c.offset : c.offset + c.size] for c in found] == written
    assert [write_container(c.entries) for c in found] == written


@given(samples(compressions=["unknown"]))
def test_an_unknown_compression_is_refused_when_the_image_is_wanted(sample: Sample) -> None:
    (entry,) = read_entries([sample])
    with pytest.raises(FormatError, match="compressed in an unknown way"):
        payload(entry)


REPETITIVE = st.builds(
    lambda pieces, times: b"".join(pieces) * times,
    st.lists(st.binary(max_size=40), max_size=20),
    st.integers(1, 60),
)


def compressed(compression: str, image: bytes, stored: bytes) -> Entry:
    """The entry of an image that is stored in this way, whether that is right or not."""
    flags = LZ4 if compression == "lz4" else ZSTD
    numbers = (2, 0x101, 64, len(stored), len(stored), 0, 0, 0, 80, 0, 0, flags, 0, len(image))
    meaning = Meaning("elf", "80", flags, 64, compression, len(stored), len(image), image)
    (entry,) = read_entries([Sample(struct.pack("<HHIQIIHHIIIQQQ", *numbers) + stored, meaning)])
    return entry


@given(REPETITIVE, st.sampled_from(["default", "high_compression"]))
def test_whatever_lz4_compressed_is_read(data: bytes, mode: str) -> None:
    stored = lz4.block.compress(data, mode, store_size=False)
    assert payload(compressed("lz4", data, stored)) == data


@given(REPETITIVE, st.integers(-7, 22))
def test_whatever_zstd_compressed_is_read(data: bytes, level: int) -> None:
    stored = zstandard.ZstdCompressor(level=level).compress(data)
    assert payload(compressed("zstd", data, stored)) == data


@given(REPETITIVE.filter(bool), st.sampled_from(["lz4", "zstd"]), st.data())
def test_what_is_cut_off_is_refused(data: bytes, compression: str, source: st.DataObject) -> None:
    stored, _ = compress(compression, data, 0)
    length = source.draw(st.integers(1, len(stored) - 1))  # 0 would say that nothing is compressed
    with pytest.raises(FormatError):
        payload(compressed(compression, data, stored[:length]))


@given(REPETITIVE.filter(bool), st.sampled_from(["lz4", "zstd"]), st.data())
def test_damage_is_refused_or_harmless(
    data: bytes, compression: str, source: st.DataObject
) -> None:
    """Not every damage can be seen; what comes has the right size."""
    stored = bytearray(compress(compression, data, 0)[0])
    stored[source.draw(st.integers(0, len(stored) - 1))] ^= source.draw(st.integers(1, 255))
    with suppress(FormatError):
        assert len(payload(compressed(compression, data, bytes(stored)))) == len(data)


def sections(data: bytes) -> list[tuple[str, bytes]]:
    return [(s.name, s.data()) for s in ELFFile(io.BytesIO(data)).iter_sections()]


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """A relocatable object encoded here, with sections of any size and alignment."""
    contents = draw(st.lists(st.tuples(st.binary(max_size=50), st.sampled_from([0, 1, 16, 256]))))
    named = [(f".s{index}", data, align) for index, (data, align) in enumerate(contents)]
    named.append((".nv_fatbin", draw(st.binary(max_size=50)), 8))
    named = draw(st.permutations(named))
    names = b"\0.shstrtab\0" + b"".join(name.encode() + b"\0" for name, _, _ in named)
    body, rows = bytearray(64), [bytes(64)]
    for name, data, align in [*named, (".shstrtab", names, 1)]:
        body += bytes(-len(body) % max(align, 1))
        offset = names.index(b"\0" + name.encode() + b"\0") + 1
        kind = 3 if name == ".shstrtab" else 1
        rows.append(
            struct.pack("<IIQQQQIIQQ", offset, kind, 0, 0, len(body), len(data), 0, 0, align, 0)
        )
        body += data
    body += bytes(-len(body) % 8)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    numbers = (1, 62, 1, 0, 0, len(body), 0, 64, 0, 0, 64, len(rows), len(rows) - 1)
    body[:64] = identity + struct.pack("<HHIQQQIHHHHHH", *numbers)
    return bytes(body) + b"".join(rows)


@given(objects(), st.binary(max_size=100))
def test_replacing_a_section_changes_only_that_section(obj: bytes, new: bytes) -> None:
    changed = replace_section(obj, {".nv_fatbin": new})
    expected = [(name, new if name == ".nv_fatbin" else data) for name, data in sections(obj)]
    assert sections(changed) == expected
    old = bytes(read_elf(obj).content(read_elf(obj).named(".nv_fatbin")[0]))
    assert replace_section(changed, {".nv_fatbin": old}) == obj
    for section in read_elf(changed).sections:
        assert section.offset % max(section.align, 1) == 0
