"""Whatever can be written is read back the same; other libraries are the oracles."""

from __future__ import annotations

import io
import struct

import lz4.block
import zstandard
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fatwheel.fatbin import lz4 as own_lz4
from fatwheel.fatbin import zstd as own_zstd
from fatwheel.fatbin.container import Entry, parse_containers, payload, write_container
from fatwheel.fatbin.elf import read_elf, replace_section

FLAGS = {"": 0, "a": 0x100000, "f": 0x200000}


@st.composite
def raw_entries(draw: st.DrawFn) -> tuple[bytes, tuple[str, str, bytes]]:
    """An entry encoded here, and (kind, architecture, image) as it must be read."""
    kind, kind_name = draw(st.sampled_from([(1, "ptx"), (2, "elf"), (8, "lto"), (77, "other")]))
    number = draw(st.sampled_from([50, 75, 80, 90, 100, 121, 999]))
    suffix = draw(st.sampled_from(sorted(FLAGS)))
    image = draw(st.binary(max_size=300).map(lambda data: data + bytes(-len(data) % 8)))
    compression = draw(st.sampled_from(["", "lz4", "zstd"]))
    stored, flags = image, FLAGS[suffix] | draw(st.sampled_from([0x11, 0x41, 0x1000013]))
    if compression == "lz4":
        stored, flags = lz4.block.compress(image, store_size=False), flags | 0x2000
    elif compression == "zstd":
        stored, flags = zstandard.ZstdCompressor().compress(image), flags | 0x8000
    header = draw(st.sampled_from([64, 72, 80, 112]))
    padded = stored + bytes(-len(stored) % 8)
    size = len(stored) if compression else 0
    fields = (kind, 0x101, header, len(padded), size, 0, 7, 8, number, 0, 0, flags, 0, len(image))
    packed = struct.pack("<HHIQIIHHIIIQQQ", *fields)
    extra = draw(st.binary(min_size=header - 64, max_size=header - 64))
    return packed + extra + padded, (kind_name, f"{number}{suffix}", image)


def read_entries(raws: list[bytes]) -> tuple[Entry, ...]:
    """Entries as a container that is put together here holds them."""
    raw = b"".join(raws)
    (container,) = parse_containers(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw)
    return container.entries


@given(st.lists(raw_entries(), max_size=6))
def test_a_written_container_is_read_back(
    entries: list[tuple[bytes, tuple[str, str, bytes]]],
) -> None:
    raw = b"".join(data for data, _ in entries)
    written = write_container(read_entries([data for data, _ in entries]))
    assert written == struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw
    (container,) = parse_containers(written)
    read = [(entry.kind, entry.arch.name, bytes(payload(entry))) for entry in container.entries]
    assert read == [meaning for _, meaning in entries]


@given(st.lists(st.tuples(st.lists(raw_entries(), max_size=3), st.integers(0, 40)), max_size=5))
def test_containers_in_a_row_are_all_found(
    row: list[tuple[list[tuple[bytes, tuple[str, str, bytes]]], int]],
) -> None:
    written = [write_container(read_entries([data for data, _ in entries])) for entries, _ in row]
    section = b"".join(
        data + bytes(padding) for data, (_, padding) in zip(written, row, strict=True)
    )
    found = parse_containers(section)
    assert [section[c.offset : c.offset + c.size] for c in found] == written
    assert [write_container(c.entries) for c in found] == written


REPETITIVE = st.builds(
    lambda pieces, times: b"".join(pieces) * times,
    st.lists(st.binary(max_size=40), max_size=20),
    st.integers(1, 60),
)


@given(REPETITIVE, st.sampled_from(["default", "high_compression"]))
def test_lz4_undoes_the_library(data: bytes, mode: str) -> None:
    assert own_lz4.decompress(lz4.block.compress(data, mode, store_size=False), len(data)) == data


@given(REPETITIVE, st.integers(-7, 22))
def test_zstd_undoes_the_library(data: bytes, level: int) -> None:
    frame = zstandard.ZstdCompressor(level=level).compress(data)
    assert own_zstd.decompress(frame, len(data)) == data


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
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_replacing_a_section_changes_only_that_section(obj: bytes, new: bytes) -> None:
    changed = replace_section(obj, {".nv_fatbin": new})
    expected = [(name, new if name == ".nv_fatbin" else data) for name, data in sections(obj)]
    assert sections(changed) == expected
    old = bytes(read_elf(obj).content(read_elf(obj).named(".nv_fatbin")[0]))
    assert replace_section(changed, {".nv_fatbin": old}) == obj
    for section in read_elf(changed).sections:
        assert section.offset % max(section.align, 1) == 0
