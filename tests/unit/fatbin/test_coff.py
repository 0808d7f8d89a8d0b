"""COFF objects read, against LIEF and what compilers were told to write; and edited, against what
the compilers write themselves and what LIEF reads."""

from __future__ import annotations

import os
import re
import string
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import lief
import pytest

from fatwheel.decoders import may_have_kernels
from fatwheel.errors import FormatError
from fatwheel.fatbin.coff import (
    Coff,
    CoffSection,
    is_coff,
    read_coff,
    replace_section,
    rewrite_object,
)
from fatwheel.fatbin.container import Entry, parse_containers, write_container

from ...helpers.coffobjects import COMPILERS, SOURCE, compile_object, without_time

Tool = Callable[[str], str]
Compile = Callable[..., bytes]

BIG_CLASS = bytes.fromhex("c7a1bad1eebaa94baf20faf66aa4dcb8")


@pytest.fixture(scope="module")
def compile_(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Compile:
    """compile_(compiler, payload=..., source=..., suffix=...)"""

    def call(compiler: str, payload: bytes = b"0123456789abcdef", **options: str) -> bytes:
        folder = tmp_path_factory.mktemp("coff")
        return compile_object(tool, folder, compiler, payload, **options)

    return call


@pytest.fixture(scope="module", params=COMPILERS)
def obj(request: pytest.FixtureRequest, compile_: Compile) -> bytes:
    return compile_(request.param)


def by_lief(data: bytes) -> lief.COFF.Binary:
    found = lief.COFF.parse(list(data))
    assert found is not None, "LIEF does not read it"
    return found


def header(machine: int = 0x8664, sections: int = 1, symbols: int = 0, flags: int = 0) -> bytes:
    return struct.pack("<HHIIIHH", machine, sections, 0, symbols, 0, 0, flags)


def big_header(version: int = 2, class_id: bytes = BIG_CLASS, clr: int = 0) -> bytes:
    fields = (0, 0xFFFF, version, 0x8664, 0, class_id, 0, 0, clr, 0, 0, 0, 0)
    return struct.pack("<HHHHI16sIIIIIII", *fields)


def with_name(field: bytes, strings: bytes) -> bytes:
    """An object with one empty section, whose header holds this name."""
    row = struct.pack("<8sIIIIIIHHI", field, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    table = struct.pack("<I", 4 + len(strings)) + strings
    return header(symbols=60) + row + table


def test_sections_are_those_that_lief_reads(obj: bytes) -> None:
    ours, theirs = read_coff(obj), by_lief(obj)
    assert [
        (s.name, s.size, s.offset, s.relocation_count, s.line_count, s.flags) for s in ours.sections
    ] == [
        (
            t.coff_string.string if t.coff_string else t.name,
            t.sizeof_raw_data,
            t.pointerto_raw_data,
            t.numberof_relocations,
            t.numberof_line_numbers,
            t.characteristics,
        )
        for t in theirs.sections
    ]
    for section, other in zip(ours.sections, theirs.sections, strict=True):
        if section.in_file:
            assert bytes(ours.content(section)) == bytes(other.content), section.name
        assert len(ours.relocations(section)) == 10 * len(other.relocations), section.name
    names = [section.name for section in ours.sections]
    assert {".nv_fatb", ".nvFatBi", ".a_long_name", ".bss"} <= set(names)
    assert bytes(ours.content(ours.named(".nv_fatb")[0])) == b"0123456789abcdef"
    assert ours.content(ours.named(".bss")[0]) == b""


def test_symbols_are_those_that_objdump_reads(obj: bytes, tmp_path: Path, tool: Tool) -> None:
    (tmp_path / "a.obj").write_bytes(obj)
    command = [tool("x86_64-w64-mingw32-objdump"), "--syms", "a.obj"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    line = r"\(sec +(-?\d+)\)\(fl 0x00\)\(ty +(\w+)\)\(scl +(\d+)\) \(nx (\d+)\) 0x(\w+) "
    theirs = [
        (int(section), int(type_, 16), int(storage), int(auxiliary), int(value, 16))
        for section, type_, storage, auxiliary, value in re.findall(line, shown.stdout)
    ]
    coff = read_coff(obj)
    special = 2**32 if coff.big else 2**16
    ours = [
        (
            symbol.section - special if symbol.section > 0xFF00 else symbol.section,
            symbol.type,
            symbol.storage,
            symbol.auxiliary,
            symbol.value,
        )
        for symbol in coff.symbols()
    ]
    assert ours == theirs
    assert len(ours) > 10


def test_sections_own_symbols_are_known(obj: bytes) -> None:
    coff = read_coff(obj)
    lengths = {
        symbol.section: struct.unpack_from("<I", coff.symbol_table, symbol.record)[0]
        for symbol in coff.symbols()
        if symbol.defines_section
    }
    assert lengths[coff.named(".nv_fatb")[0].index] == 16
    assert lengths[coff.named(".a_long_name")[0].index] == 4


@pytest.mark.parametrize(
    ("target", "machine"),
    [("x86_64", "x86_64"), ("aarch64", "aarch64"), ("i686", "x86")],
)
def test_machines(tool: Tool, tmp_path: Path, target: str, machine: str) -> None:
    (tmp_path / "a.c").write_text("int x;")
    command = [tool("clang"), f"--target={target}-pc-windows-msvc", "-c", "a.c", "-o", "a.obj"]
    subprocess.run(command, cwd=tmp_path, check=True)
    data = (tmp_path / "a.obj").read_bytes()
    assert is_coff(data[:100])
    assert read_coff(data).machine == machine


@pytest.mark.parametrize("compiler", ["mingw-bigobj", "clang"])
def test_more_sections_than_small_objects_can_count(compile_: Compile, compiler: str) -> None:
    lines = [f'.section .s{index},"dr"\n.byte {index & 255}\n' for index in range(66_000)]
    coff = read_coff(compile_(compiler, source="".join(lines), suffix=".s"))
    assert coff.big
    # One of them fills sections up to four bytes.
    assert coff.content(coff.named(".s65999")[0])[0] == 65999 & 255


@pytest.mark.parametrize("compiler", COMPILERS)
def test_more_relocations_than_a_header_can_count(compile_: Compile, compiler: str) -> None:
    """Above 65534, the number is in the first entry, which counts itself (PE Format,
    IMAGE_SCN_LNK_NRELOC_OVFL)."""
    source = '.section .many,"dr"\n.rept 70000\n.quad elsewhere\n.endr\n'
    coff = read_coff(compile_(compiler, source=source, suffix=".s"))
    (section,) = coff.named(".many")
    assert section.relocation_count == 0xFFFF
    assert len(coff.relocations(section)) == 70_001 * 10


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"MZ" + bytes(100),
        b"\x7fELF\x02\x01\x01" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b"\x50\xed\x55\xba\1\0\x10\0" + bytes(100),
        b"!<arch>\n" + bytes(100),
        header()[:19],
        header(machine=0x1234),
        header(sections=0),
        header(sections=0xFF00),
        header(symbols=59),
        header(sections=2, symbols=60),
        header(flags=2),
    ],
)
def test_other_files_are_not_objects(head: bytes) -> None:
    assert not is_coff(head)
    with pytest.raises(FormatError, match="not a COFF object"):
        read_coff(head)


def test_a_header_is_known() -> None:
    assert is_coff(header())
    assert is_coff(header(symbols=60))
    assert is_coff(big_header())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (big_header(version=1), "holds no machine code"),
        (big_header(class_id=bytes(16)), "holds no machine code"),
        (big_header(clr=1), r"CLR \(\.NET\) metadata"),
        (big_header()[:55], "has only 55"),
        (header(sections=3), "has only 20"),
        (with_name(b"/99", b"\0"), "outside its string table"),
        (with_name(b"/3", b"name\0"), "outside its string table"),
        (with_name(b"/4", b"name"), "outside its string table"),
        (with_name(b"/x", b"name\0"), "no name"),
        (with_name(b"//", b"name\0"), "no name"),
        (with_name(b"", b"name\0")[:-1], "has only 68"),
    ],
)
def test_malformed_objects_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_coff(data)


def test_long_names() -> None:
    padding = bytes(4091)  # offsets count from the table's own size, which takes 4 bytes
    strings = padding + b"a name\0"
    assert names(read_coff(with_name(b"/4095", strings))) == ["a name"]
    digits = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    field = f"//AAAA{digits[4095 // 64]}{digits[4095 % 64]}".encode()
    assert names(read_coff(with_name(field, strings))) == ["a name"]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_long_names_of_nvcc_s_sections_are_cut_as_linkers_cut_them(
    compile_: Compile, compiler: str
) -> None:
    source = SOURCE.replace(".nv_fatb,", ".nv_fatbin,").replace('".nvFatBi"', '".nvFatBinSegment"')
    coff = read_coff(compile_(compiler, payload=b"device code", source=source))
    [section] = coff.named(".nv_fatb")
    assert section.name == ".nv_fatbin"
    assert bytes(coff.content(section)).startswith(b"device code")
    assert [found.name for found in coff.named(".nvFatBi")] == [".nvFatBinSegment"]


def names(coff: Coff) -> list[str]:
    return [section.name for section in coff.sections]


def test_an_object_without_symbols() -> None:
    coff = read_coff(header() + struct.pack("<8sIIIIIIHHI", b".x", *[0] * 9))
    assert names(coff) == [".x"]
    assert list(coff.symbols()) == []


def test_truncated_objects_are_refused(obj: bytes) -> None:
    with pytest.raises(FormatError, match="has only"):
        read_coff(obj[:-1])


def test_a_symbol_that_is_cut_off_is_refused(obj: bytes) -> None:
    coff = read_coff(obj)
    changed = bytearray(obj)
    *_, last = coff.symbols()
    changed[coff.symbols_offset + last.record - 1] = last.auxiliary + 1
    with pytest.raises(FormatError, match="the last symbol is cut off"):
        list(read_coff(changed).symbols())


FATBIN = (Path(__file__).parents[2] / "data" / "device" / "none.fatbin").read_bytes()
ENTRIES = parse_containers(FATBIN)[0].entries
# Where numbers stand in a section header: offset and size of contents, number of lines.
SIZE, OFFSET, LINES = 16, 20, 34


@pytest.fixture(scope="module")
def compile_text(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Compile:
    """compile_(compiler, payload, source=..., suffix=...), always in the same folder: its name
    gets into debug information."""
    folder = tmp_path_factory.mktemp("coff")

    def call(compiler: str, payload: bytes = FATBIN, **options: str) -> bytes:
        return compile_object(tool, folder, compiler, payload, **options)

    return call


@pytest.fixture(scope="module", params=COMPILERS)
def compiler(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def built(compile_text: Compile, compiler: str) -> bytes:
    return compile_text(compiler)


def contents(data: bytes) -> list[tuple[str, int, bytes]]:
    """Name, number of relocations and bytes of each section, as LIEF reads them."""
    parsed = lief.COFF.parse(list(data))
    assert parsed is not None, "LIEF does not read it"
    return [
        (
            section.coff_string.string if section.coff_string else section.name,
            len(section.relocations),
            bytes(section.content) if section.pointerto_raw_data else b"",
        )
        for section in parsed.sections
    ]


def row(data: bytes, name: str) -> int:
    """Where the header of a section stands."""
    coff = read_coff(data)
    return (56 if coff.big else 20) + 40 * (coff.named(name)[0].index - 1)


def with_number(data: bytes, at: int, value: int, code: str = "<I") -> bytes:
    changed = bytearray(data)
    struct.pack_into(code, changed, at, value)
    return bytes(changed)


# -- sections ------------------------------------------------------------------------------------


def test_replacing_nothing_gives_what_the_compiler_wrote(built: bytes) -> None:
    assert replace_section(built, {}) == built


@pytest.mark.parametrize("size", [8, 4096, 100_000])
def test_the_result_is_what_the_compiler_writes_for_these_bytes(
    built: bytes, compile_text: Compile, compiler: str, size: int
) -> None:
    """Checksums and symbols included; only the time of making differs."""
    new = os.urandom(size)
    changed = replace_section(built, {".nv_fatb": new})
    assert without_time(changed) == without_time(compile_text(compiler, new))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100_003])
def test_other_sections_keep_their_bytes(built: bytes, size: int) -> None:
    new = os.urandom(size)
    changed = replace_section(built, {".nv_fatb": new})
    assert contents(changed) == [
        (name, relocations, new if name == ".nv_fatb" else data)
        for name, relocations, data in contents(built)
    ]
    # No dead bytes: putting the old content back gives the old file.
    assert replace_section(changed, {".nv_fatb": FATBIN}) == built


def test_a_section_that_the_compiler_left_empty_is_filled(
    compile_text: Compile, compiler: str
) -> None:
    empty = compile_text(compiler, b"")
    changed = replace_section(empty, {".nv_fatb": FATBIN})
    assert contents(changed) == [
        (name, relocations, FATBIN if name == ".nv_fatb" else data)
        for name, relocations, data in contents(empty)
    ]
    assert replace_section(replace_section(empty, {".nv_fatb": b""}), {".nv_fatb": FATBIN}) == (
        changed
    )


def test_dead_bytes_are_dropped(built: bytes) -> None:
    """They are what remains where a section was moved to the file's end."""
    (section,) = read_coff(built).named(".nv_fatb")
    moved = with_number(built, row(built, ".nv_fatb") + OFFSET, len(built)) + FATBIN
    changed = replace_section(moved, {".nv_fatb": b"12345678"})
    assert len(changed) < len(built) - section.size + 16
    assert b"12345678" in [data for _, _, data in contents(changed)]


def test_long_relocation_tables_stay_whole(compile_text: Compile, compiler: str) -> None:
    source = '.section .nv_fatb,"dr"\n.quad 1\n.section .z,"dr"\n.rept 70000\n.quad x\n.endr\n'
    built = compile_text(compiler, source=source, suffix=".s")
    old, new = (
        read_coff(built),
        read_coff(replace_section(built, {".nv_fatb": bytes(64)})),
    )
    assert len(old.relocations(old.named(".z")[0])) == 700_010
    assert new.relocations(new.named(".z")[0]) == old.relocations(old.named(".z")[0])
    assert new.content(new.named(".z")[0]) == old.content(old.named(".z")[0])


def test_sections_that_cannot_be_replaced_are_refused(built: bytes) -> None:
    for name, message in {
        ".none": "0 sections have this name",
        ".bss": "no bytes in the file",
        ".nvFatBi": "relocated",
    }.items():
        with pytest.raises(FormatError, match=message) as caught:
            replace_section(built, {name: b""})
        assert caught.value.where == f"COFF section {name}"


def test_a_name_that_two_sections_have_is_refused(compile_text: Compile) -> None:
    source = SOURCE + '__asm__(".section .nv_fatb,\\"dr\\",discard,other\\nother: .long 1\\n");'
    with pytest.raises(FormatError, match="2 sections have this name"):
        replace_section(compile_text("clang", source=source), {".nv_fatb": b""})


def test_a_section_that_symbols_point_into_is_refused(compile_text: Compile, compiler: str) -> None:
    source = SOURCE + '__asm__(".section .nv_fatb,\\"dr\\"\\nsecond: .long 1\\n.text\\n");'
    with pytest.raises(FormatError, match="symbols point into it"):
        replace_section(compile_text(compiler, source=source), {".nv_fatb": b""})


def test_a_linked_file_is_refused() -> None:
    with pytest.raises(FormatError, match="not a COFF object"):
        replace_section(b"MZ" + bytes(1000), {".nv_fatb": b""})


def test_parts_that_share_bytes_are_refused(built: bytes) -> None:
    """Laid out anew, a small file could grow without bound."""
    shared = with_number(
        built,
        row(built, ".a_long_name") + OFFSET,
        section(built, ".text").offset,
    )
    with pytest.raises(FormatError, match="overlaps another part"):
        replace_section(shared, {".nv_fatb": b""})
    headers = with_number(built, row(built, ".a_long_name") + OFFSET, 20)
    with pytest.raises(FormatError, match="overlaps another part"):
        replace_section(headers, {".nv_fatb": b""})


def test_a_section_outside_the_file_is_refused(built: bytes) -> None:
    outside = with_number(built, row(built, ".a_long_name") + SIZE, 2**32 - 1)
    with pytest.raises(FormatError, match="but the file has only"):
        replace_section(outside, {".nv_fatb": b""})


def test_line_numbers_are_refused(built: bytes) -> None:
    lines = with_number(built, row(built, ".text") + LINES, 1, "<H")
    with pytest.raises(FormatError, match="line numbers") as caught:
        replace_section(lines, {".nv_fatb": b""})
    assert caught.value.where == "COFF section .text"


def section(data: bytes, name: str) -> CoffSection:
    return read_coff(data).named(name)[0]


# -- containers ----------------------------------------------------------------------------------


def rewrite(data: bytes, *contents: tuple[Entry, ...]) -> bytes:
    done = rewrite_object(read_coff(data), contents, may_have_kernels)
    assert done.notes == ()
    written = b"".join(done.pieces)
    assert len(written) == done.size
    return written


def test_the_container_gets_the_given_entries(built: bytes) -> None:
    kept = ENTRIES[::2]
    data = contents(rewrite(built, kept))
    assert [new for name, _, new in data if name == ".nv_fatb"] == [write_container(kept)]
    assert rewrite(built, ENTRIES) == built


def test_the_result_depends_on_the_entries_alone(built: bytes) -> None:
    emptied = rewrite(built, ())
    assert len(emptied) < len(built) - 17_000
    assert rewrite(emptied, ENTRIES[1:]) == rewrite(built, ENTRIES[1:])


def test_large_parts_are_not_copied(built: bytes) -> None:
    coff = read_coff(built)
    copied = [
        p for p in rewrite_object(coff, [ENTRIES], may_have_kernels).pieces if isinstance(p, bytes)
    ]
    assert sum(map(len, copied)) < len(built) - len(FATBIN)


def test_one_sequence_of_entries_per_container(built: bytes) -> None:
    for wrong in ((), (ENTRIES, ENTRIES)):
        with pytest.raises(ValueError, match=f"{len(wrong)} contents for 1 containers"):
            rewrite_object(read_coff(built), wrong, may_have_kernels)


def test_several_containers_are_refused(compile_text: Compile) -> None:
    built = compile_text("clang", FATBIN * 2)
    with pytest.raises(FormatError, match="2 containers, where only one"):
        rewrite(built, (), ())


def test_a_container_that_does_not_start_its_section_is_refused(
    compile_text: Compile,
) -> None:
    built = compile_text("clang", bytes(8) + FATBIN)
    with pytest.raises(FormatError, match="where only one at the section's start"):
        rewrite(built, ())


def test_relocatable_device_code_is_refused_by_name(compile_text: Compile, compiler: str) -> None:
    built = compile_text(compiler, source=SOURCE.replace(".nv_fatb", "__nv_rel"))
    with pytest.raises(FormatError, match="relocatable device code") as caught:
        rewrite(built, ())
    assert caught.value.where == "section __nv_rel"


def test_a_container_that_nothing_points_to_is_refused(
    compile_text: Compile, compiler: str
) -> None:
    for changed in (
        SOURCE.replace('(".nvFatBi")', '(".other")'),
        SOURCE.replace("1, fatbin, 0}", "1, fatbin + 16, 0}"),
    ):
        assert changed != SOURCE
        built = compile_text(compiler, source=changed)
        with pytest.raises(FormatError, match=r"nothing shows how|no container is at"):
            rewrite(built, ())
