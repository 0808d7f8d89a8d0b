"""Containers and entries, against files that NVIDIA's fatbinary made (data/device/README.md)."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import pytest

from fatwheel.decoders import may_have_kernels, payload
from fatwheel.errors import FormatError
from fatwheel.fatbin.container import (
    Entry,
    Wrapper,
    lay_in_place,
    lay_out,
    parse_containers,
    read_wrappers,
    used_containers,
    write_container,
)
from fatwheel.storage.mapped import map_path

from ...helpers.deviceimages import ONE, TWO, compute, container, entries, raw, sm

DATA = Path(__file__).parents[2] / "data" / "device"
CUBINS = ("cuda13.0-sm_80.cubin", "cuda13.0-sm_90a.cubin", "cuda13.0-sm_120f.cubin")
NAMES = ("none", "lz4", "zstd")


def packed(*entries: bytes, magic: int = 0xBA55ED50, version: int = 1, header: int = 16) -> bytes:
    body = b"".join(entries)
    return head(len(body), magic, version, header) + body


def head(size: int, magic: int = 0xBA55ED50, version: int = 1, header: int = 16) -> bytes:
    """What comes before entries that have so many bytes."""
    return struct.pack("<IHHQ", magic, version, header, size)


def entry(
    image: bytes = b"12345678",
    *,
    kind: int = 1,
    number: int = 80,
    flags: int = 0x11,
    header: int = 64,
    compressed: int = 0,
    uncompressed: int = 0,
    padded: int | None = None,
) -> bytes:
    fields = (kind, 0x101, header, len(image) if padded is None else padded, compressed, 0, 0, 9)
    return (
        struct.pack("<HHIQIIHHIIIQQQ", *fields, number, 0, 0, flags, 0, uncompressed).ljust(
            header, b"\0"
        )
        + image
    )


def read_entry(raw: bytes) -> Entry:
    ((read,),) = [found.entries for found in parse_containers(packed(raw))]
    return read


@pytest.mark.parametrize("name", NAMES)
def test_reads_what_fatbinary_was_given(name: str) -> None:
    (found,) = parse_containers((DATA / f"{name}.fatbin").read_bytes())
    images = [(entry.kind, entry.arch.name) for entry in found.entries]
    assert images == [("elf", "80"), ("ptx", "80"), ("elf", "90a"), ("elf", "120f")]
    expected = "" if name == "none" else name
    assert {entry.compression for entry in found.entries} == {expected}


@pytest.mark.parametrize("name", NAMES)
def test_payloads_are_the_files_that_went_in(name: str) -> None:
    (found,) = parse_containers((DATA / f"{name}.fatbin").read_bytes())
    cubins = [bytes(payload(entry)) for entry in found.entries if entry.kind == "elf"]
    assert cubins == [(DATA / cubin).read_bytes() for cubin in CUBINS]
    (ptx,) = [bytes(payload(entry)) for entry in found.entries if entry.kind == "ptx"]
    # fatbinary strips comments' lines and line ends; the text's own words must be there.
    assert b".visible .entry scale(" in ptx
    assert b".target sm_80" in ptx


@pytest.mark.parametrize("name", NAMES)
def test_writing_the_entries_gives_the_file_again(name: str) -> None:
    data = (DATA / f"{name}.fatbin").read_bytes()
    (found,) = parse_containers(data)
    assert write_container(found.entries) == data


def test_zero_padding_between_and_around_containers_is_skipped() -> None:
    one, two = packed(entry(number=80)), packed(entry(number=86), entry(number=90))
    data = bytes(8) + one + bytes(200_000) + two + bytes(3)
    first, second = parse_containers(data)
    assert (first.offset, first.size) == (8, len(one))
    assert (second.offset, second.size) == (8 + len(one) + 200_000, len(two))
    assert [entry.arch.number for entry in second.entries] == [86, 90]


@pytest.mark.parametrize("data", [b"", bytes(100_001)])
def test_an_empty_section_has_no_containers(data: bytes) -> None:
    assert parse_containers(data) == ()


def test_a_container_may_be_empty() -> None:
    assert parse_containers(packed())[0].entries == ()


@pytest.mark.parametrize(
    ("kind", "name"), [(1, "ptx"), (2, "elf"), (8, "lto"), (3, "other"), (0x40, "other")]
)
def test_kinds(kind: int, name: str) -> None:
    assert read_entry(entry(kind=kind)).kind == name


@pytest.mark.parametrize(
    ("flags", "arch"), [(0x11, "100"), (0x100011, "100a"), (0x1200041, "100f"), (0x2041, "100")]
)
def test_suffixes_come_from_the_flags(flags: int, arch: str) -> None:
    assert read_entry(entry(number=100, flags=flags)).arch.name == arch


def test_header_size_is_always_used() -> None:
    read = read_entry(entry(b"image678", header=112))
    assert bytes(payload(read)) == b"image678"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x50\xed\x55\xba", "header is cut off"),
        (packed(magic=0x12345678), "magic"),
        (packed(version=2), "version 2"),
        (packed(header=24), "header of 24 bytes"),
        (packed(entry())[:-1], "claims 72 bytes of images, 71 are there"),
        (packed(entry()[:63]), "entry's header is cut off"),
        (packed(entry(header=64)[:4] + struct.pack("<I", 63) + entry()[8:]), "be 63 bytes"),
        (packed(entry(padded=9)), "claims 9 bytes, 8 are there"),
        (packed(entry(padded=2**64 - 1)), "8 are there"),
        (packed(entry(compressed=9)), "9 compressed bytes"),
        (packed(entry(number=0)), "architecture 0, which cannot be"),
        (packed(entry(kind=1, number=1000)), "architecture 1000, which cannot be"),
        (packed() + b"\0\0junk", "header is cut off"),
    ],
)
def test_malformed_containers_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_containers(data)


def test_errors_say_where() -> None:
    data = packed(entry()) + packed(entry(), entry(padded=9))
    with pytest.raises(FormatError) as caught:
        parse_containers(data)
    # 16 + 72 bytes before the second container, 72 before its second entry.
    assert caught.value.where == "fatbin container at offset 0x58, entry at 0x48"


@pytest.mark.parametrize("flags", [0x2011, 0x8011])
def test_images_cannot_claim_a_hundred_times_their_size(flags: int) -> None:
    """Small sections may, up to 64 MiB in all: it does no harm."""
    claims = entry(flags=flags, compressed=8, uncompressed=32 << 20)
    assert len(parse_containers(packed(claims * 2))[0].entries) == 2
    with pytest.raises(FormatError, match="304 bytes of device code claim to be 100663296"):
        parse_containers(packed(claims * 3) + bytes(72))
    megabyte = entry(bytes(1 << 20))
    parse_containers(packed(claims * 3 + megabyte))


def test_what_is_not_decompressed_may_claim_anything() -> None:
    unknown = read_entry(entry(kind=77, flags=0x10011, compressed=8, uncompressed=1 << 60))
    assert unknown.uncompressed == 1 << 60


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for its memory")
@pytest.mark.parametrize("alone", [False, True])
def test_a_mapped_file_does_not_stay_in_memory(alone: bool, tmp_path: Path) -> None:
    """Of a library with gigabytes of images only the headers are looked at, but systems read more
    than they are asked for, and count it as this process's. alone: all are in one container."""
    image = entry(bytes(100_000))
    count = 1000
    rows = [head(count * len(image)), *[image] * count] if alone else [packed(image)] * count
    with (tmp_path / "file").open("wb") as file:
        file.writelines([*rows, *[bytes(1_000_000)] * 100, packed(image)])
    data = map_path(tmp_path / "file", "")
    before = in_memory()
    assert sum(len(one.entries) for one in parse_containers(data)) == count + 1
    assert in_memory() - before < 50_000_000


def in_memory() -> int:
    """Bytes of mapped files that are in this process's memory now (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE


PLAIN, LINKED = 1, 2


def wrapper(target: int, version: int = PLAIN, magic: int = 0x466243B1) -> bytes:
    """As facts about CUDA tell: magic, version, pointer, and a field for linked device code."""
    return struct.pack("<IIQQ", magic, version, target, 0)


def read(section: bytes, address: int = 0x1000) -> tuple[Wrapper, ...]:
    def address_at(place: int) -> int:
        return int.from_bytes(section[place - address : place - address + 8], "little")

    return read_wrappers(memoryview(section), address, address_at)


def test_wrappers_are_found_between_padding() -> None:
    section = wrapper(0x500) + bytes(8) + wrapper(0x600, LINKED) + bytes(16)
    assert read(section) == (Wrapper(0x1008, 1, 0x500), Wrapper(0x1028, 2, 0x600))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (wrapper(0)[:-1], "the wrapper is cut off"),
        (wrapper(0, magic=0x466243B2), "no wrapper here: magic 0x466243b2"),
        (wrapper(0, 3), "version 3 of the wrapper is not known"),
    ],
)
def test_what_is_no_wrapper_is_refused(section: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read(wrapper(0) + section)
    assert caught.value.where == "fatbin wrapper at address 0x1018"


def test_a_null_pointer_leads_nowhere() -> None:
    section = wrapper(0x500) + wrapper(0) + wrapper(0x600)
    found = read_wrappers(
        memoryview(section), 0x1000, lambda place: {0x1008: 0x500, 0x1038: 0x600}.get(place)
    )
    assert found == (Wrapper(0x1008, 1, 0x500), Wrapper(0x1038, 1, 0x600))


def test_containers_with_their_pointers() -> None:
    wrappers = [Wrapper(1, PLAIN, 0x500), Wrapper(2, LINKED, 0x600), Wrapper(3, PLAIN, 0x500)]
    held = {0x500: entries(sm(80)), 0x600: entries(sm(80, TWO))}
    assert used_containers(wrappers, held, [], may_have_kernels) == {0x500: (1, 3), 0x600: (2,)}


def test_pointers_to_relocatable_code_do_not_matter() -> None:
    wrappers = [Wrapper(1, PLAIN, 0x900), Wrapper(2, LINKED, 0x600)]
    held = {0x600: entries(sm(80))}
    assert used_containers(wrappers, held, [range(0x900, 0xA00)], may_have_kernels) == {0x600: (2,)}
    with pytest.raises(FormatError, match="no container is at address 0x900"):
        used_containers(wrappers, held, [range(0x901, 0xA00)], may_have_kernels)


def test_unused_containers_are_left_out_if_they_hold_no_kernels() -> None:
    """As linkers leave them of nvcc's stubs for linked device code."""
    nothing = {0x500: (), 0x600: entries(sm(80, {}), compute(80, []), sm(90, {}))}
    assert used_containers([], nothing, [], may_have_kernels) == {}


@pytest.mark.parametrize(
    "image",
    [sm(80, ONE), compute(80, ["one"]), raw("lto", 80, b"who knows"), raw("elf", 80, b"damaged!")],
    ids=["cubin", "PTX", "another kind", "a damaged cubin"],
)
def test_unused_containers_that_may_hold_kernels_are_refused(image: bytes) -> None:
    with pytest.raises(FormatError, match="nothing shows how the program finds") as caught:
        used_containers([], {0x500: entries(sm(80, {}), image)}, [], may_have_kernels)
    assert caught.value.where == "fatbin container at address 0x500"


def test_laid_out_one_after_the_other() -> None:
    contents = [entries(sm(80), sm(90)), (), entries(compute(80))]
    offsets, pieces = lay_out(contents)
    data = b"".join(pieces)
    found = parse_containers(data)
    assert tuple(one.offset for one in found) == offsets
    assert [one.entries for one in found] == [tuple(one) for one in contents]
    assert all(offset % 8 == 0 for offset in offsets)


SECTION = bytes(16) + container(sm(80), sm(90)) + bytes(40) + container(sm(80, TWO)) + bytes(24)


def in_place(*contents: bytes) -> bytes:
    """SECTION with these containers' images."""
    found = parse_containers(SECTION)
    wanted = [parse_containers(one)[0].entries for one in contents]
    data = bytearray(SECTION)
    for offset, piece in lay_in_place(found, len(SECTION), wanted):
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def test_containers_at_their_places_leave_zeros() -> None:
    first, second = container(sm(90)), container()
    found = in_place(first, second)
    starts = [one.offset for one in parse_containers(SECTION)]
    assert len(found) == len(SECTION)
    assert found == bytes(16) + first.ljust(starts[1] - 16, b"\0") + second.ljust(
        len(SECTION) - starts[1], b"\0"
    )


def test_what_was_taken_out_fits_in_again() -> None:
    assert in_place(container(sm(80), sm(90)), container(sm(80, TWO))) == SECTION


def test_a_section_without_containers_stays_as_it_is() -> None:
    assert lay_in_place([], 64, []) == ()


def test_more_than_a_container_has_room_for_is_refused() -> None:
    too_much = container(sm(80), sm(90), sm(80))
    with pytest.raises(FormatError, match="do not fit into the ") as caught:
        in_place(too_much, container())
    assert str(len(too_much)) in caught.value.what
    assert caught.value.where == "relocatable fatbin container at offset 0x10"
