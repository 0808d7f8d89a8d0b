"""Cubins of NVIDIA's tools of which one thing was changed, found with pyelftools."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.compare.device import differing_cubins
from fatwheel.compare.differences import Difference, Position
from fatwheel.errors import FormatError

from ...helpers.deviceimages import cubin

DATA = Path(__file__).parents[2] / "data" / "device"
CUBINS = sorted(path for path in DATA.glob("cuda*.cubin"))
PLACE = Position("a.so", image="sm_80")


def told(one: bytes, other: bytes) -> list[Difference]:
    return list(differing_cubins(PLACE, memoryview(one), memoryview(other)))


def offset(data: bytes, section: str) -> int:
    found = ELFFile(io.BytesIO(data)).get_section_by_name(section)
    assert found is not None, f"no section {section}"
    assert found["sh_size"] > 0
    return int(found["sh_offset"])


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize("path", CUBINS, ids=lambda path: path.stem)
def test_one_byte_of_a_kernel_s_code(path: Path) -> None:
    data = path.read_bytes()
    [found] = told(data, flipped(data, offset(data, ".text.scale") + 0x21))
    assert (found.level, found.place) == ("kernel", PLACE.at(symbol="scale"))
    assert found.what.startswith("SASS in 1 of ")
    assert found.what.endswith("the first that differs is at 0x21")


@pytest.mark.parametrize("path", CUBINS, ids=lambda path: path.stem)
def test_one_byte_of_every_section_is_told_of(path: Path) -> None:
    """As code, constants or notes, by the section's name."""
    data = path.read_bytes()
    for section in ELFFile(io.BytesIO(data)).iter_sections():
        name, size = section.name, section["sh_size"]
        if size == 0 or section["sh_type"] in ("SHT_NULL", "SHT_NOBITS"):
            continue
        if name in (".symtab", ".strtab", ".shstrtab"):  # then names are others, too
            continue
        try:
            found = told(data, flipped(data, section["sh_offset"] + size - 1))
        except FormatError:
            continue  # a record that cannot be read
        assert len(found) == 1, name
        if name.startswith(".text."):
            assert found[0].what.startswith("SASS"), name
        elif name.startswith(".nv.constant0."):
            kernel = name.removeprefix(".nv.constant0.")
            assert (found[0].level, found[0].place.symbol) == ("kernel", kernel)
        elif name.startswith((".note", ".debug", ".nv_debug", ".nv.callgraph")):
            assert (found[0].level, found[0].place) == ("debug", PLACE), name
            assert found[0].what.endswith(f": {name}")


def test_what_ptxas_was_called_with_can_be_read() -> None:
    data = (DATA / "cuda13.0-sm_80.cubin").read_bytes()
    start = data.find(b"-arch sm_80")
    assert start > 0, "the sample has no such note"
    [found] = told(data, data[:start] + b"-arch sm_81" + data[start + 11 :])
    assert found.level == "debug"
    assert ".note.nv.tkinfo" in found.what
    assert found.one is not None
    assert found.other is not None
    assert "-arch sm_80" in found.one
    assert "-arch sm_81" in found.other


def test_a_kernel_that_only_one_has() -> None:
    one = cubin(80, {"a": [(0, 8)], "b": [(0, 8)]})
    found = told(one, cubin(80, {"a": [(0, 8)]}))
    assert (found[0].level, found[0].what, found[0].place.symbol) == (
        "kernel", "only in the first", "b",
    )  # fmt: skip
    [tables] = found[1:]
    assert tables.level == "debug", "its sections are no news"
    assert tables.one is None, "nor is the first name in a table that is not the same"


def test_other_parameters() -> None:
    [found] = told(cubin(80, {"a": [(0, 8), (8, 4)]}), cubin(80, {"a": [(0, 8), (8, 8)]}))
    assert (found.level, found.place.symbol) == ("kernel", "a")
    assert found.what == (
        "its parameters: #0 of 8 bytes, #1 of 4 bytes became #0 of 8 bytes, #1 of 8 bytes"
    )


def test_code_of_another_size() -> None:
    [found] = told(cubin(80, {"a": []}, b"1234"), cubin(80, {"a": []}, b"12345678"))
    assert found.what == "SASS: 8 bytes became 12; the first that differs is at 0x8"


def test_only_headers() -> None:
    data = cubin(80, {"a": []})
    [found] = told(data, data[:24] + b"\1" + data[25:])  # the entry point, which nobody uses
    assert (found.level, found.what.startswith("only its headers")) == ("image", True)


def test_sections_that_overlap_are_refused() -> None:
    """They could make a small file cost a lot."""
    data = bytearray(cubin(80, {"a": []}, bytes(1000)))
    table, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    text = struct.unpack_from("<QQ", data, table + 64 + 24)
    for index in range(1, count - 3):
        struct.pack_into("<QQ", data, table + index * 64 + 24, *text)
    other = bytes(data[:24]) + b"\1" + bytes(data[25:])
    with pytest.raises(FormatError, match=r"overlap|cut off"):
        told(bytes(data), other)
