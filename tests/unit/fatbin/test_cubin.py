"""Kernels and layouts, against the PTX source of the test cubins (data/device/README.md)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.errors import FormatError
from fatwheel.fatbin.cubin import (
    Parameter,
    ParameterLayout,
    arch_of_cubin,
    kernel_names_of_cubin,
    kernel_names_of_ptx,
    kernels_of_cubin,
)
from fatwheel.fatbin.elf import read_elf

DATA = Path(__file__).parents[2] / "data" / "device"
SCALE_CUBINS = sorted(DATA.glob("cuda*.cubin"))

# scale.ptx: a u64, 12 bytes aligned to 4, a u16.
SCALE = ParameterLayout(22, (Parameter(0, 8, 0), Parameter(1, 12, 8), Parameter(2, 2, 20)))
# large.ptx: a u8, 16400 bytes aligned to 8, a u64: too large for the older records.
LARGE = ParameterLayout(16416, (Parameter(0, 1, 0), Parameter(1, 16400, 8), Parameter(2, 8, 16408)))


@pytest.mark.parametrize("path", SCALE_CUBINS, ids=lambda path: path.stem)
def test_kernels_and_their_parameters(path: Path) -> None:
    found = kernels_of_cubin(path.read_bytes())
    assert found == {"scale": SCALE, "$empty": ParameterLayout(0, ())}
    assert _places(found["scale"]) == _places(SCALE)
    assert sorted(kernel_names_of_cubin(path.read_bytes())) == ["$empty", "scale"]


def test_large_parameters() -> None:
    found = kernels_of_cubin((DATA / "large.cubin").read_bytes())
    assert found == {"large": LARGE}
    assert _places(found["large"]) == _places(LARGE)


def _places(layout: ParameterLayout) -> tuple[int, list[int]]:
    """What does not count when layouts are compared."""
    return layout.size, [parameter.offset for parameter in layout.parameters]


def test_places_of_parameters_do_not_count() -> None:
    """A parameter of 128 bytes, aligned to 64, begins elsewhere on each architecture."""
    one = ParameterLayout(256, (Parameter(0, 4, 0), Parameter(1, 128, 32)))
    other = ParameterLayout(272, (Parameter(0, 4, 0), Parameter(1, 128, 48)))
    assert one == other
    assert str(one) == str(other)
    assert one != ParameterLayout(256, (Parameter(0, 8, 0), Parameter(1, 128, 32)))


@pytest.mark.parametrize("path", SCALE_CUBINS, ids=lambda path: path.stem)
def test_architecture(path: Path) -> None:
    """The file's name says what ptxas was asked for; the suffix f is not kept in a cubin."""
    asked = path.stem.partition("sm_")[2]
    assert arch_of_cubin(path.read_bytes()).name == asked.removesuffix("f")


@pytest.mark.parametrize("path", SCALE_CUBINS, ids=lambda path: path.stem)
def test_a_cubin_for_no_architecture_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 0x30, 0)  # e_flags
    with pytest.raises(FormatError, match="architecture 0, which cannot be"):
        arch_of_cubin(data)


def test_ptx_entries() -> None:
    assert kernel_names_of_ptx((DATA / "scale.ptx").read_bytes()) == ("scale", "$empty")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"", ()),
        (b".visible .entry _Z1kPf(\n", ("_Z1kPf",)),
        (b".weak .entry\n\t%odd$name()", ("%odd$name",)),
        (b"// .entry a\n.entry b()", ("b",)),
        (b"/* .entry a\n */ .entry b()", ("b",)),
        (b"/* .entry a", ()),
        (b'.file 1 ".entry a" .entry b()', ("b",)),
        (b".func entry() .entryx y()", ()),
        (b".entry a()\0\0\0", ("a",)),
    ],
)
def test_ptx_entries_of_odd_texts(text: bytes, names: tuple[str, ...]) -> None:
    assert kernel_names_of_ptx(text) == names


PTX_PARTS = st.sampled_from(
    [b".entry", b" a", b"b", b"\n", b"\r\n", b"//", b'"', b"/", b"*/", b"\t", b".visible ", b"("]
)


@given(st.lists(PTX_PARTS, max_size=25).map(b"".join))
def test_reading_ptx_by_lines_finds_what_reading_it_whole_does(text: bytes) -> None:
    """A comment that may span lines makes it be read whole."""
    whole = text + b"\n/* */"
    assert kernel_names_of_ptx(text) == kernel_names_of_ptx(whole)


def test_ptx_with_many_open_comments_takes_no_quadratic_time() -> None:
    assert kernel_names_of_ptx(b"/*" * 2_000_000) == ()


def test_other_elf_files_are_no_cubins() -> None:
    header = bytearray((DATA / "large.cubin").read_bytes())
    struct.pack_into("<H", header, 0x12, 62)  # e_machine: x86-64
    with pytest.raises(FormatError, match="not a cubin: an ELF file for machine 62"):
        kernels_of_cubin(header)


def test_a_record_that_is_cut_off_is_refused() -> None:
    data = bytearray((DATA / "large.cubin").read_bytes())
    record = data.find(b"\x04\x45\x0c\x00")  # format 4, KPARAM_INFO_V2, 12 bytes
    assert record > 0, "the sample must have the record"
    struct.pack_into("<H", data, record + 2, 0xFFFF)
    with pytest.raises(FormatError, match="record is cut off") as caught:
        kernels_of_cubin(data)
    assert caught.value.where == ".nv.info.large"


def test_sections_that_share_bytes_are_refused() -> None:
    """Each `.nv.info.<kernel>` is made to span nearly all of the file."""
    data = bytearray((DATA / "cuda13.0-sm_80.cubin").read_bytes())
    elf = read_elf(data)
    for section in elf.sections:
        if section.name.startswith(".nv.info."):
            struct.pack_into("<QQ", data, elf.table + 64 * section.index + 0x18, 64, len(data) - 64)
    with pytest.raises(FormatError, match="overlap"):
        kernels_of_cubin(data)


def test_a_second_symbol_table_is_refused() -> None:
    data = bytearray((DATA / "cuda13.0-sm_80.cubin").read_bytes())
    elf = read_elf(data)
    (other,) = elf.named(".debug_frame")
    struct.pack_into("<I", data, elf.table + 64 * other.index + 4, 2)  # SHT_SYMTAB
    with pytest.raises(FormatError, match="2 ELF symbol tables"):
        kernel_names_of_cubin(data)


def test_layouts_read_well() -> None:
    assert str(SCALE) == "#0 of 8 bytes, #1 of 12 bytes, #2 of 2 bytes"
    assert str(ParameterLayout(0, ())) == "no parameters"
