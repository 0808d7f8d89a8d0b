"""The ELF reader and rewriter, against pyelftools, readelf, objcopy and the linker."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from fatwheel.errors import FormatError
from fatwheel.fatbin.elf import Elf, Names, read_elf, replace_section

Tool = Callable[[str], str]

# Sections of many alignments, COMDAT groups, NOBITS, relocations, and one to be replaced.
SOURCE = r"""
extern "C" const char payload[];
__asm__(".section .nv_fatbin,\"a\"\n.align 8\npayload: .ascii \"0123456789\"\n.previous");
static int zero[1000];
alignas(64) static const int table[3] = {1, 2, 3};
template <class T> T twice(T x) { return x + x + table[2]; }
thread_local int local = 5;
int main(int argc, char**) {
    zero[argc] = argc;
    return twice(zero[1]) + (int)twice(2.0f) + local + payload[0] - 1 - 1 - 3 - 5 - 5 - 2 - '0';
}
"""


@pytest.fixture(scope="module")
def obj(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> bytes:
    folder = tmp_path_factory.mktemp("elf")
    (folder / "a.cpp").write_text(SOURCE)
    command = [tool("g++"), "-c", "-g", "-O0", "-fPIC", "a.cpp", "-o", "a.o"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "a.o").read_bytes()


def contents(data: bytes) -> list[tuple[str, bytes]]:
    """Name and content of each section, as pyelftools reads them."""
    sections = ELFFile(io.BytesIO(data)).iter_sections()
    return [
        (section.name, b"" if section["sh_type"] == "SHT_NOBITS" else section.data())
        for section in sections
    ]


def test_sections_are_those_that_pyelftools_reads(obj: bytes) -> None:
    for data in (obj, Path(sys.executable).resolve().read_bytes()):
        ours = read_elf(data)
        theirs = ELFFile(io.BytesIO(data))
        assert (ours.type, ours.abi, ours.flags) == (
            {"ET_REL": 1, "ET_EXEC": 2, "ET_DYN": 3}[theirs["e_type"]],
            theirs["e_ident"]["EI_ABIVERSION"],
            theirs["e_flags"],
        )
        assert [(s.name, s.offset, s.size, s.link, s.info, s.align) for s in ours.sections] == [
            (t.name, *(t[f"sh_{key}"] for key in ("offset", "size", "link", "info", "addralign")))
            for t in theirs.iter_sections()
        ]
        assert [(s.name, bytes(ours.content(s))) for s in ours.sections] == contents(data)


def test_symbols_are_those_that_pyelftools_reads(obj: bytes) -> None:
    table = ELFFile(io.BytesIO(obj)).get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    # pyelftools names a section's own symbol after the section; the file leaves it unnamed.
    theirs = [
        "" if symbol["st_info"]["type"] == "STT_SECTION" else symbol.name
        for symbol in table.iter_symbols()
    ]
    ours = [symbol.name for symbol in read_elf(obj).symbols()]
    assert ours == theirs
    assert "main" in ours


def test_replacing_nothing_gives_what_the_assembler_wrote(obj: bytes) -> None:
    assert replace_section(obj, {}) == obj


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100_003])
def test_other_sections_keep_their_bytes_and_alignment(obj: bytes, size: int) -> None:
    new = os.urandom(size)
    changed = replace_section(obj, {".nv_fatbin": new})
    expected = [(name, new if name == ".nv_fatbin" else data) for name, data in contents(obj)]
    assert contents(changed) == expected
    for section in ELFFile(io.BytesIO(changed)).iter_sections():
        align = max(section["sh_addralign"], 1)
        assert section["sh_offset"] % align == 0, f"{section.name} is not aligned to {align}"
    # No dead bytes: putting the old content back gives the old file.
    assert replace_section(changed, {".nv_fatbin": b"0123456789"}) == obj


def test_readelf_has_no_complaints(obj: bytes, tmp_path: Path, tool: Tool) -> None:
    (tmp_path / "new.o").write_bytes(replace_section(obj, {".nv_fatbin": b"x" * 12345}))
    command = [tool("readelf"), "--wide", "--all", "new.o"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_objcopy_agrees_on_every_section(obj: bytes, tmp_path: Path, tool: Tool) -> None:
    (tmp_path / "old.o").write_bytes(obj)
    (tmp_path / "new").write_bytes(b"y" * 4321)
    command = [tool("objcopy"), "--update-section", ".nv_fatbin=new", "old.o", "theirs.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    ours = dict(contents(replace_section(obj, {".nv_fatbin": b"y" * 4321})))
    theirs = dict(contents((tmp_path / "theirs.o").read_bytes()))
    # objcopy writes its tables of symbols and names anew, in another order.
    rewritten = {".symtab", ".strtab", ".shstrtab", ".group"}
    rewritten |= {name for name in ours if name.startswith(".rela")}
    for name in ours.keys() - rewritten:
        assert ours[name] == theirs[name], f"section {name} differs from objcopy's"


def test_the_result_links_and_runs(obj: bytes, tmp_path: Path, tool: Tool) -> None:
    (tmp_path / "a.o").write_bytes(replace_section(obj, {".nv_fatbin": b"0" + bytes(99_999)}))
    subprocess.run([tool("g++"), "a.o", "-o", "a"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "a"], check=False).returncode == 0


def test_a_linked_file_is_refused() -> None:
    data = Path(sys.executable).resolve().read_bytes()
    with pytest.raises(FormatError, match="only relocatable objects"):
        replace_section(data, {".comment": b""})


def test_a_section_that_is_missing_or_not_unique_is_refused(obj: bytes) -> None:
    with pytest.raises(FormatError, match="0 sections"):
        replace_section(obj, {".no_such": b""})
    groups = [name for name, _ in contents(obj)].count(".group")
    assert groups > 1, "the sample must have several groups"
    with pytest.raises(FormatError, match=f"{groups} sections"):
        replace_section(obj, {".group": b""})


def test_sections_that_cannot_be_replaced_are_refused(obj: bytes) -> None:
    with pytest.raises(FormatError, match="relocated"):
        replace_section(obj, {".text": b""})
    with pytest.raises(FormatError, match="no bytes in the file"):
        replace_section(obj, {".bss": b""})


def with_section_field(obj: bytes, index: int, offset: int, value: int, code: str) -> bytes:
    """The object with one number of one section header changed."""
    elf = read_elf(obj)
    changed = bytearray(obj)
    struct.pack_into(code, changed, elf.table + 64 * index + offset, value)
    return bytes(changed)


def section(elf: Elf, name: str) -> int:
    return elf.named(name)[0].index


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "not an ELF"),
        (b"MZ" + bytes(100), "not an ELF"),
        (b"\x7fELF", "cut off"),
        (b"\x7fELF\x01\x01" + bytes(100), "64-bit little-endian"),
        (b"\x7fELF\x02\x02" + bytes(100), "64-bit little-endian"),
    ],
)
def test_other_files_are_refused(head: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_elf(head)


def test_a_truncated_object_is_refused(obj: bytes) -> None:
    with pytest.raises(FormatError, match="cut off"):
        read_elf(obj[:-1])


def test_a_section_outside_the_file_is_refused_when_it_is_read(obj: bytes) -> None:
    index = section(read_elf(obj), ".nv_fatbin")
    elf = read_elf(with_section_field(obj, index, 0x20, 2**64 - 1, "<Q"))
    with pytest.raises(FormatError, match="the file has only") as caught:
        elf.content(elf.sections[index])
    assert caught.value.where == "ELF section .nv_fatbin"


def test_names_outside_their_table_are_refused(obj: bytes) -> None:
    with pytest.raises(FormatError, match="name lies outside"):
        read_elf(with_section_field(obj, 1, 0, 0xFFFFFF, "<I"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (0x18, 64, "overlaps"),  # sh_offset: over the first section
        (0x30, 2**40, "alignment"),  # sh_addralign
    ],
)
def test_objects_that_would_grow_without_bound_are_refused(
    obj: bytes, field: int, value: int, message: str
) -> None:
    index = section(read_elf(obj), ".comment")
    with pytest.raises(FormatError, match=message):
        replace_section(with_section_field(obj, index, field, value, "<Q"), {".nv_fatbin": b""})


def test_a_section_keeps_the_alignment_that_it_has_in_the_file(obj: bytes) -> None:
    """GNU as 2.44 aligns to 8 at most in the file, whatever a section asks for in memory."""
    index = section(read_elf(obj), ".comment")
    assert read_elf(obj).sections[index].offset % 4096, "the sample is aligned by chance"
    less = with_section_field(obj, index, 0x30, 4096, "<Q")
    assert replace_section(less, {}) == less
    changed = replace_section(less, {".nv_fatbin": b"x" * 11})
    before, after = (dict(contents(data)) for data in (less, changed))
    assert after.pop(".nv_fatbin") == b"x" * 11
    assert before.pop(".nv_fatbin") == b"0123456789"
    assert after == before
    assert len(changed) - len(less) < 64, "zeros that nobody asked for"


def test_more_sections_than_the_header_can_count(tmp_path: Path, tool: Tool) -> None:
    """Above 65280 sections the counts move into the first section header (gABI, 'e_shnum')."""
    lines = [f'.section .s{index},"a"\n.byte {index & 255}' for index in range(66_000)]
    (tmp_path / "many.s").write_text("\n".join(lines) + '\n.section .nv_fatbin,"a"\n.byte 1\n')
    subprocess.run([tool("as"), "many.s", "-o", "many.o"], cwd=tmp_path, check=True)
    data = (tmp_path / "many.o").read_bytes()
    changed = read_elf(replace_section(data, {".nv_fatbin": b"new"}))
    assert bytes(changed.content(changed.named(".nv_fatbin")[0])) == b"new"
    assert bytes(changed.content(changed.named(".s65999")[0])) == bytes([65999 & 255])


def test_how_much_is_read_of_names_depends_on_their_table() -> None:
    """Names may share bytes: a short table must not become gigabytes of names, a long one may."""
    short = Names(b"a" * (1 << 20) + b"\0")
    for _ in range(63):
        short.at(0)
    with pytest.raises(FormatError, match="the ELF names take more than 67108864 bytes in all"):
        short.at(0)
    long = Names(b"a" * (15 << 20) + b"\0" + b"b" * (15 << 20) + b"\0")
    assert sum(len(long.at(place)) for place in (0, (15 << 20) + 1) * 2) == 60 << 20


def test_names_that_take_more_memory_than_bytes() -> None:
    """What is no UTF-8 is shown as four characters for a byte."""
    with pytest.raises(FormatError, match="the ELF names take more than"):
        Names(b"\xff" * (16 << 20) + b"\0").at(0)
    with pytest.raises(FormatError, match="an ELF name is longer than 16777216 bytes"):
        Names(b"\xff" * (17 << 20) + b"\0").at(0)
