"""Device code among data: found wherever it lies, and nothing else is taken for it.

The containers and cubins were made by NVIDIA's tools (data/device/README.md): three cubins, for 80,
90a and 120f, and PTX for 80.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import pytest

from fatwheel.errors import FormatError
from fatwheel.fatbin import embedded
from fatwheel.fatbin.binary import read_binary
from fatwheel.fatbin.container import parse_containers
from fatwheel.fatbin.embedded import Bound, EmbeddedCode, find_embedded, place_of, total_size

from ...helpers.cudawheels import LZ4, NONE, images
from ...helpers.datasections import coff_object, elf_library, pe_library
from ...helpers.standins import DATA

CUBIN = (DATA / "cuda12.4-sm_90a.cubin").read_bytes()
EVERY = ["sm_80", "compute_80", "sm_90a", "sm_120f"]
MAGIC = struct.pack("<I", 0xBA55ED50)


def found_in(data: bytes) -> tuple[EmbeddedCode, ...]:
    return find_embedded(memoryview(data), read_binary(memoryview(data)).format, Bound())


def in_data(content: bytes) -> tuple[EmbeddedCode, ...]:
    return found_in(elf_library({".data": content}))


def test_containers_are_found_by_section() -> None:
    data, rodata = found_in(
        elf_library({".text": b"code", ".data": b"before" + NONE + LZ4, ".rodata": LZ4 + b"behind"})
    )
    assert (data.name, data.containers, data.cubins) == (".data", 2, 0)
    assert data.size == len(NONE) + len(LZ4)
    assert (rodata.name, rodata.containers, rodata.size) == (".rodata", 1, len(LZ4))
    assert total_size([data, rodata]) == len(NONE) + 2 * len(LZ4)
    assert {one.name for one in rodata.images} == set(EVERY)
    assert all(one.compressed and one.count == 1 for one in rodata.images)
    assert sorted(one.count for one in data.images) == [1] * 8, "compressed and not: no sums"


def test_images_have_the_sizes_of_their_headers() -> None:
    """As fatbinary wrote them: u64 at 0x08 of each entry that is not compressed."""
    [place] = in_data(NONE)
    sizes = {
        name: struct.unpack_from("<Q", entry, 8)[0]
        for name, entry in zip(EVERY, images(NONE), strict=True)
    }
    assert {one.name: one.size for one in place.images} == sizes


def test_cubins_in_no_container_are_found() -> None:
    [place] = in_data(b"x" * 13 + CUBIN + NONE + CUBIN)
    assert (place.containers, place.cubins) == (1, 2)
    assert place.size == 2 * len(CUBIN) + len(NONE)
    [single] = [one for one in place.images if one.count == 3]
    assert (single.kind, single.name) == ("elf", "sm_90a"), "two by themselves, one in a container"


def test_what_lies_in_something_found_is_not_counted_again() -> None:
    """NONE holds three whole cubins."""
    [place] = in_data(NONE)
    assert (place.containers, place.cubins) == (1, 0)


WRITERS: Mapping[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "elf": elf_library,
    "pe": pe_library,
    "coff": coff_object,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_is_searched(kind: str) -> None:
    """Sections for device code are read elsewhere; a relocatable one is named so everywhere."""
    code = {"elf": ".nv_fatbin"}.get(kind, ".nv_fatb")
    relocatable = {"elf": "__nv_relfatbin"}.get(kind, "__nv_rel")
    data = WRITERS[kind]({".cask_re": LZ4, code: NONE, relocatable: NONE, ".data": b"12" + LZ4})
    binary = read_binary(memoryview(data))
    assert (binary.format, len(binary.containers), len(binary.relocatable)) == (kind, 1, 1)
    assert [place.title for place in found_in(data)] == [
        "1 container in .cask_re",
        "1 container in .data",
    ]


@pytest.mark.parametrize("name", ["zstd.fatbin", "large.cubin"])
def test_device_code_by_itself_has_none_in_its_data(name: str) -> None:
    assert found_in((DATA / name).read_bytes()) == ()


def test_what_lies_outside_all_sections_is_found() -> None:
    [place] = found_in(elf_library({".text": b"code"}, tail=LZ4))
    assert (place.name, place.size) == ("", len(LZ4))
    assert place.title == "1 container outside all sections"


def test_pieces_of_the_search_overlap() -> None:
    for before in range(embedded._PIECE - 8, embedded._PIECE + 2):
        assert [place.containers for place in in_data(bytes(before) + LZ4)] == [1], before
        assert [place.cubins for place in in_data(bytes(before) + CUBIN)] == [1], before


def test_a_container_ends_where_its_section_does() -> None:
    assert found_in(elf_library({".data": LZ4[:-8], ".more": LZ4[-8:]})) == ()
    assert found_in(elf_library({".data": CUBIN[:-8], ".more": CUBIN[-8:]})) == ()


def test_containers_without_entries_hold_no_code() -> None:
    assert in_data(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 0) * 3) == ()


DAMAGES = {
    "container's version": (4, "<H", 2),
    "its header's size": (6, "<H", 24),
    "size of all entries, too small": (8, "<Q", len(NONE) - 24),
    "size of all entries, too large": (8, "<Q", len(NONE) - 8),
    "entry's version": (18, "<H", 0x0102),
    "its header's size, too small": (20, "<I", 56),
    "its header's size, of another entry": (20, "<I", 72),
    "its payload": (24, "<Q", 1 << 63),
    "its architecture": (16 + 0x1C, "<I", 5),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_beginning_alone_is_no_container(damage: str) -> None:
    offset, layout, value = DAMAGES[damage]
    data = bytearray(NONE + bytes(64))
    struct.pack_into(layout, data, offset, value)
    assert not any(place.containers for place in in_data(bytes(data)))


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [(18, "<H", 62), (40, "<Q", 1 << 40), (58, "<H", 40), (60, "<H", 0), (62, "<H", 999)],
    ids=["machine", "section table", "its rows", "their number", "section of names"],
)
def test_a_beginning_alone_is_no_cubin(offset: int, layout: str, value: int) -> None:
    data = bytearray(CUBIN)
    struct.pack_into(layout, data, offset, value)
    assert in_data(bytes(data)) == ()


def test_sections_that_share_bytes_are_searched_once() -> None:
    data = bytearray(elf_library({".one": NONE, ".two": b"x", ".three": b"y"}))
    table = struct.unpack_from("<Q", data, 40)[0]
    for row in (2, 3):  # both now lie where the first does
        struct.pack_into("<QQ", data, table + 64 * row + 24, 64, len(NONE))
    assert [place.title for place in found_in(bytes(data))] == ["1 container in .one"]


def test_what_a_section_of_device_code_holds_is_not_found_again() -> None:
    """Whichever others claim its bytes: those that begin before it, within it, or end behind it."""
    data = bytearray(elf_library({".before": b"12345678", ".nv_fatbin": NONE * 2, ".data": LZ4}))
    table = struct.unpack_from("<Q", data, 40)[0]
    for start, size in ((64, 8 + len(NONE)), (72 + len(NONE), len(NONE)), (80, 3 * len(NONE))):
        struct.pack_into("<QQ", data, table + 64 + 24, start, size)
        assert [place.size for place in found_in(bytes(data))] == [len(LZ4)], start


def test_a_file_of_nothing_but_beginnings_is_refused_in_time() -> None:
    """Each claims all that follows, and its entries fill it almost to the end."""
    count = 20_000
    data = b"".join(
        struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 80 * (count - number) - 16)
        + struct.pack("<HHIQ", 2, 0x101, 64, 16).ljust(64, b"\0")
        for number in range(count)
    )
    with pytest.raises(FormatError, match="begins like device code and is none"):
        in_data(data)


def test_known_containers_are_counted_in_the_same_way() -> None:
    [place] = in_data(LZ4 + NONE)
    assert place_of(".data", parse_containers(LZ4 + NONE)) == place


def test_large_numbers_are_readable() -> None:
    assert EmbeddedCode(".data", 18_227, 1, 7, ()).title == "18,227 containers and 1 cubin in .data"


# -- made to cost time ---------------------------------------------------------------------------

HEADER = struct.Struct("<IHHQ")
ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")


def entry(padded: int, stored: int = 0) -> bytes:
    return ENTRY.pack(2, 0x101, 64, padded, stored, 0, 0, 7, 80, 0, 0, 0, 0, 0)


def test_containers_that_share_an_end_which_is_none_are_refused() -> None:
    """Each of 1,300 is walked to its last entry, the 1,300th, and only that is wrong."""
    tail = entry(0) * 1299 + entry(0, stored=5)
    unit = HEADER.size + ENTRY.size
    heads = b"".join(
        HEADER.pack(0xBA55ED50, 1, 16, number * unit + ENTRY.size + len(tail))
        + entry(number * unit)
        for number in reversed(range(1300))
    )
    with pytest.raises(FormatError, match="begins like device code and is none"):
        in_data(heads + tail)


def test_what_is_read_in_vain_is_bounded_in_all_files_together() -> None:
    """A wheel may have very many small ones."""
    library = memoryview(elf_library({".data": HEADER.pack(0xBA55ED50, 1, 16, 64) + bytes(64)}))
    bound = Bound()

    def search(files: int) -> None:
        for _ in range(files):
            assert find_embedded(library, "elf", bound) == ()

    search(1000)
    with pytest.raises(FormatError, match="begins like device code and is none"):
        search(20_000)


def test_very_many_containers_are_found() -> None:
    """What is found costs no more than its bytes."""
    one = HEADER.pack(0xBA55ED50, 1, 16, ENTRY.size) + entry(0)
    [place] = in_data(one * 100_000)
    assert place.containers == 100_000


def test_a_name_stays_on_its_line() -> None:
    [place] = found_in(elf_library({".x\nerror: y": NONE}))
    assert "\n" not in place.title
