"""Linked ELF files with other device code: loaded by the system, read by readelf and others."""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import lief
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from fatwheel.decoders import may_have_kernels
from fatwheel.errors import FormatError
from fatwheel.fatbin.binary import read_binary, rewrite_binary
from fatwheel.fatbin.elf import read_elf
from fatwheel.fatbin.elf_linked import rewrite_linked, rewrite_object

from ...helpers.elflibraries import (
    FIRST,
    HOST,
    LIBRARIES,
    LIBRARY,
    PROGRAMS,
    SECOND,
    UNLOADED,
    Contents,
    Tool,
    container,
    entries,
    image,
    link,
    link_variant,
    sections,
    shown_by_library,
    shown_by_program,
)

PAGE = 4096
ORIGINAL = container(*FIRST) + container(*SECOND)
# Less, more, and very little device code; the middle container is the one that nothing uses.
LESS: Contents = (entries(FIRST[0]), (), entries(SECOND[0]))
MORE: Contents = (entries(*FIRST, image(120, "e", 100_000)), (), entries(*SECOND, FIRST[0]))
NONE: Contents = ((), (), ())
LARGE = image(80, "x", 300_000)
OTHER = {"less": LESS, "more": MORE, "none": NONE}

Linked = Callable[[str], bytes]


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Linked:
    made: dict[str, bytes] = {}

    def make(name: str) -> bytes:
        if name not in made:
            made[name] = link_variant(tool, tmp_path_factory.mktemp("elf"), name)
        return made[name]

    return make


def rewritten(data: bytes, contents: Contents) -> bytes:
    """With these contents; in an edited file the container that nothing uses is gone."""
    if len(read_binary(memoryview(data)).containers) == 2:
        contents = (contents[0], contents[2])
    return b"".join(rewrite_linked(read_elf(data), contents, may_have_kernels).pieces)


def raw(contents: Contents) -> bytes:
    """The containers that a program must find, encoded here."""
    return b"".join(
        container(*(bytes(entry.raw) for entry in chosen)) for chosen in (contents[0], contents[2])
    )


def complaints(data: bytes, folder: Path, tool: Tool) -> str:
    (folder / "read.so").write_bytes(data)
    command = [tool("readelf"), "--wide", "--all", "read.so"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stderr


every_kind = pytest.mark.parametrize("name", [*LIBRARIES, *PROGRAMS, *UNLOADED])
each_other = pytest.mark.parametrize("contents", OTHER.values(), ids=OTHER)


# -- what the system makes of it -----------------------------------------------------------------


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_loaded_library_finds_its_new_device_code(
    linked: Linked, tmp_path: Path, name: str
) -> None:
    changed = [rewritten(linked(name), contents) for contents in OTHER.values()]
    expected = ORIGINAL + b"".join(raw(contents) for contents in OTHER.values())
    assert shown_by_library(tmp_path, linked(name), *changed) == expected


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_finds_its_new_device_code(linked: Linked, tmp_path: Path, name: str) -> None:
    assert shown_by_program(tmp_path, linked(name)) == ORIGINAL
    for contents in OTHER.values():
        assert shown_by_program(tmp_path, rewritten(linked(name), contents)) == raw(contents)


def test_what_programs_now_need_is_said(linked: Linked) -> None:
    done = rewrite_linked(read_elf(linked("program-pie")), LESS, may_have_kernels)
    assert done.notes == (
        "this program now needs Linux 5.18 or newer, and patchelf would break it: its program "
        "headers have moved",
    )
    assert rewrite_linked(read_elf(linked("rela")), LESS, may_have_kernels).notes == ()


@pytest.mark.parametrize("name", ["rela", "relr", "compact", "lld"])
def test_patchelf_may_edit_before_and_after(
    linked: Linked, tmp_path: Path, tool: Tool, name: str
) -> None:
    file = tmp_path / "patched.so"

    def patched(data: bytes, path: str) -> bytes:
        file.write_bytes(data)
        subprocess.run([tool("patchelf"), "--set-rpath", path, file], check=True)
        return file.read_bytes()

    before = rewritten(patched(linked(name), "$ORIGIN/" + "long/" * 40), LESS)
    assert shown_by_library(tmp_path, before) == raw(LESS)
    after = patched(before, "$ORIGIN/" + "longer/" * 50)
    assert shown_by_library(tmp_path, after) == raw(LESS)
    again = rewritten(after, MORE)
    assert shown_by_library(tmp_path, again) == raw(MORE)
    assert rewritten(again, LESS) == rewritten(after, LESS)


def test_data_keeps_its_alignment(tmp_path: Path, tool: Tool) -> None:
    """Linkers align a segment to what its data needs; dropping pages must not break that."""
    aligned = 'extern "C" { alignas(65536) char block[65536] = {1}; }'
    for options in ((), ("-Wl,-z,max-page-size=0x200000",)):
        data = link(
            tool, tmp_path, [*LIBRARY, *options], host=HOST + aligned, first=container(LARGE)
        )
        contents = ((), (), entries(*SECOND))
        changed = rewritten(data, contents)
        assert len(data) - len(changed) > len(LARGE) - 65536 - 3 * PAGE
        assert shown_by_library(tmp_path, changed) == raw(contents)
        assert complaints(changed, tmp_path, tool) == ""
        elf = ELFFile(io.BytesIO(changed))
        (place,) = (section for section in elf.iter_sections() if section.name == ".data")
        assert place["sh_addralign"] == 65536, "the sample must be aligned"
        (holder,) = (s for s in elf.iter_segments("PT_LOAD") if s.section_in_segment(place))
        assert holder["p_align"] == 65536
        assert (holder["p_vaddr"] - holder["p_offset"]) % 65536 == 0


# -- the file ------------------------------------------------------------------------------------


@every_kind
@each_other
def test_nothing_else_changes(linked: Linked, name: str, contents: Contents) -> None:
    data = linked(name)
    old, new = sections(data), sections(rewritten(data, contents))
    expected = container(*(bytes(e.raw) for e in contents[0])) + container(
        *(bytes(e.raw) for e in contents[2])
    )
    assert new[".nv_fatbin"][1] == expected
    assert list(new) == list(old)
    for section in old.keys() - {".nv_fatbin"}:
        assert new[section][0] == old[section][0], f"the address of {section} moved"
        assert len(new[section][1]) == len(old[section][1]), f"the size of {section} changed"
    changed = {section for section in old if new[section][1] != old[section][1]}
    pointers = {".nvFatBinSegment", ".rela.dyn", ".symtab"}
    assert changed <= {".nv_fatbin", *pointers}


@every_kind
@each_other
def test_addresses_hold_what_they_held(linked: Linked, name: str, contents: Contents) -> None:
    """What is loaded where, by LIEF: every section, from the segments alone."""
    data = linked(name)
    changed = rewritten(data, contents)
    loaded = lief.parse(list(changed))
    assert isinstance(loaded, lief.ELF.Binary)
    for section, (address, content) in sections(changed).items():
        if address and content and section != ".nv_fatbin":
            found = bytes(loaded.get_content_from_virtual_address(address, len(content)))
            assert found == content, f"{section} is not loaded to {address:#x}"


@every_kind
@each_other
def test_the_loader_s_rules_are_kept(linked: Linked, name: str, contents: Contents) -> None:
    """As glibc and Linux check or assume them."""
    changed = rewritten(linked(name), contents)
    elf = ELFFile(io.BytesIO(changed))
    segments = [*elf.iter_segments()]
    loaded = [segment for segment in segments if segment["p_type"] == "PT_LOAD"]
    end = 0
    for segment in loaded:
        assert segment["p_vaddr"] >= end, "segments must ascend and not overlap"
        end = segment["p_vaddr"] + segment["p_memsz"]
        assert segment["p_memsz"] >= segment["p_filesz"]
        assert segment["p_memsz"] > 0
        assert segment["p_align"] % PAGE == 0
        assert (segment["p_vaddr"] - segment["p_offset"]) % segment["p_align"] == 0
        assert segment["p_offset"] + segment["p_filesz"] <= len(changed)
    table = (elf["e_phoff"], elf["e_phnum"] * elf["e_phentsize"])
    last = loaded[-1]
    assert (last["p_offset"], last["p_flags"]) == (table[0], 4)
    for segment in segments:
        if segment["p_type"] == "PT_PHDR":
            assert (segment["p_offset"], segment["p_filesz"]) == table
            assert segment["p_vaddr"] == last["p_vaddr"]
        elif segment["p_filesz"]:
            holders = [
                s
                for s in loaded
                if s["p_offset"] <= segment["p_offset"]
                and segment["p_offset"] + segment["p_filesz"] <= s["p_offset"] + s["p_filesz"]
                and segment["p_vaddr"] - s["p_vaddr"] == segment["p_offset"] - s["p_offset"]
            ]
            assert holders, f"{segment['p_type']} is not loaded"


@every_kind
def test_readelf_has_no_complaints(linked: Linked, tmp_path: Path, tool: Tool, name: str) -> None:
    before = complaints(linked(name), tmp_path, tool)
    for contents in OTHER.values():
        assert complaints(rewritten(linked(name), contents), tmp_path, tool) == before


@every_kind
def test_symbols_follow_their_containers(linked: Linked, name: str) -> None:
    changed = rewritten(linked(name), LESS)
    address, content = sections(changed)[".nv_fatbin"]
    elf = ELFFile(io.BytesIO(changed))
    table = elf.get_section_by_name(".symtab")
    if name == "stripped":
        assert table is None
        return
    assert isinstance(table, SymbolTableSection)
    places = {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}
    assert places["first"] == address
    assert places["second"] == address + len(container(FIRST[0]))
    assert places["unused"] == address, "a container that is gone leaves its symbols at the start"
    assert content[places["second"] - address :] == container(SECOND[0])


@every_kind
def test_dead_bytes_are_dropped(linked: Linked, name: str) -> None:
    """All but the edges: of the old place, of the new segment, and the new table."""
    data = linked(name)
    before = len(sections(data)[".nv_fatbin"][1])
    for contents in OTHER.values():
        grown = len(rewritten(data, contents)) - len(data)
        assert grown - (len(raw(contents)) - before) <= 2 * PAGE + 56 * 16


def test_a_part_of_a_page_is_emptied_where_it_is(tmp_path: Path, tool: Tool) -> None:
    data = link(tool, tmp_path, LIBRARY, first=container(image(80, "x", 40)), second=container())
    changed = rewritten(data, LESS)
    assert b"xxxx" not in changed
    loads = [len([*ELFFile(io.BytesIO(d)).iter_segments("PT_LOAD")]) for d in (data, changed)]
    assert loads[1] == loads[0] + 1, "no page is free, so no segment is split"
    assert shown_by_library(tmp_path, changed) == raw(LESS)


@every_kind
def test_only_the_contents_matter_and_not_what_was_there_before(linked: Linked, name: str) -> None:
    data = linked(name)
    for first in OTHER.values():
        for second in OTHER.values():
            once = rewritten(data, second)
            assert rewritten(rewritten(data, first), second) == once


def test_the_pieces_are_parts_of_the_old_file(linked: Linked) -> None:
    """No copy of a large file is made."""
    data = linked("rela")
    done = rewrite_linked(read_elf(data), MORE, may_have_kernels)
    copied = sum(len(piece) for piece in done.pieces if isinstance(piece, bytes))
    views = [piece.obj for piece in done.pieces if isinstance(piece, memoryview)]
    assert copied < 4 * PAGE
    assert data in views
    assert done.size == len(b"".join(done.pieces))


def test_binaries_are_rewritten_by_their_kind(linked: Linked) -> None:
    data = memoryview(linked("rela"))
    done = rewrite_binary(data, LESS, may_have_kernels)
    found = read_binary(memoryview(b"".join(done.pieces)))
    assert (found.format, found.machine, found.linked) == ("elf", "x86_64", True)
    kept = [[bytes(entry.raw) for entry in c.entries] for c in found.containers]
    assert kept == [[FIRST[0]], [SECOND[0]]]


# -- pointers by symbols -------------------------------------------------------------------------


def test_exported_containers_move_with_their_symbols(tmp_path: Path, tool: Tool) -> None:
    """A global symbol is relocated by name; the dynamic symbol must follow, too."""
    data = link(tool, tmp_path, LIBRARY, visible=".globl first")
    kinds = {
        relocation["r_info_type"]
        for relocation in ELFFile(io.BytesIO(data))
        .get_section_by_name(".rela.dyn")
        .iter_relocations()
    }
    assert 1 in kinds, "the sample must have a relocation by symbol"
    changed = rewritten(data, MORE)
    assert shown_by_library(tmp_path, changed) == raw(MORE)
    (symbol,) = (
        ELFFile(io.BytesIO(changed)).get_section_by_name(".dynsym").get_symbol_by_name("first")
    )
    assert symbol["st_value"] == sections(changed)[".nv_fatbin"][0]
    assert rewritten(changed, LESS) == rewritten(data, LESS)


# -- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "more", "message"),
    [
        ("", '.section .data\n.quad first', "points into device code and is no wrapper"),
        ("", '.section .data\n.quad first + 100', "points into device code and is no wrapper"),
        (".globl first", ".section .data\n.quad first + 64", "points into device code and is no"),
        ("", '.section .nv_fatbin,"a"\ntail: .quad 0', "where no container starts"),
        ("", ".quad 5, 6, 7", "no wrapper here: magic 0x00000005"),
        ("", ".long 0x466243B1, 1\n.quad wrappers, 0", "no container is at address"),
        ("", ".long 0x466243B1, 1\n.quad 8, 0", "not relocated in any way that is known"),
        ("", ".long 0x466243B1, 3\n.quad first, 0", "version 3 of the wrapper"),
        ("", ".quad 1", "the wrapper is cut off"),
    ],
)  # fmt: skip
def test_what_could_break_is_refused(
    tmp_path: Path, tool: Tool, visible: str, more: str, message: str
) -> None:
    data = link(tool, tmp_path, LIBRARY, visible=visible, more=more)
    with pytest.raises(FormatError, match=message):
        rewrite_linked(read_elf(data), LESS, may_have_kernels)


def test_other_pointers_are_refused_with_relr_too(tmp_path: Path, tool: Tool) -> None:
    options = [*LIBRARY, *LIBRARIES["relr"]]
    data = link(tool, tmp_path, options, more=".section .data\n.quad first")
    with pytest.raises(FormatError, match="points into device code and is no wrapper"):
        rewrite_linked(read_elf(data), LESS, may_have_kernels)


def with_section(data: bytes, name: str, offset: int, code: str, value: int) -> bytes:
    """The file with one number of a section's header changed."""
    elf = read_elf(data)
    changed = bytearray(data)
    struct.pack_into(code, changed, elf.table + 64 * elf.named(name)[0].index + offset, value)
    return bytes(changed)


def test_other_machines_are_refused_by_name(linked: Linked) -> None:
    arm = linked("rela")[:18] + struct.pack("<H", 183) + linked("rela")[20:]
    with pytest.raises(FormatError, match="for aarch64 cannot be replaced") as caught:
        rewrite_linked(read_elf(arm), LESS, may_have_kernels)
    assert "x86_64" in (caught.value.hint or "")


def test_a_file_without_device_code_is_refused(tmp_path: Path, tool: Tool, linked: Linked) -> None:
    source = "int x;"
    command = [tool("gcc"), "-x", "c", "-", *LIBRARY, "-o", "a.so"]
    subprocess.run(command, cwd=tmp_path, check=True, input=source, text=True)
    with pytest.raises(FormatError, match=r"no section is named \.nv_fatbin"):
        rewrite_linked(read_elf((tmp_path / "a.so").read_bytes()), (), may_have_kernels)
    empty = with_section(linked("rela"), ".nv_fatbin", 0x20, "<Q", 0)
    with pytest.raises(FormatError, match="it holds no device code"):
        rewrite_linked(read_elf(empty), (), may_have_kernels)


def test_relocatable_code_alone_is_refused(tmp_path: Path, tool: Tool) -> None:
    link(tool, tmp_path, LIBRARY)
    device = (tmp_path / "device.s").read_text().replace(".nv_fatbin", "__nv_relfatbin")
    (tmp_path / "device.s").write_text(device)
    command = [tool("g++"), *LIBRARY, "host.o", "device.s", "-o", "linked"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(FormatError, match=r"relocatable device code .* cannot be replaced"):
        rewrite_linked(read_elf((tmp_path / "linked").read_bytes()), LESS, may_have_kernels)


def test_sections_that_share_bytes_are_refused(linked: Linked) -> None:
    elf = read_elf(linked("rela"))
    code = elf.named(".nv_fatbin")[0]
    shared = with_section(linked("rela"), ".comment", 0x18, "<Q", code.offset + 100)
    with pytest.raises(FormatError, match=r"it shares bytes with section \.comment"):
        rewrite_linked(read_elf(shared), LESS, may_have_kernels)


def test_a_section_that_is_not_loaded_is_refused(linked: Linked) -> None:
    moved = with_section(linked("program"), ".nv_fatbin", 0x10, "<Q", 0x10)
    with pytest.raises(FormatError, match="no container is at address"):
        rewrite_linked(read_elf(moved), LESS, may_have_kernels)


def test_contents_must_match_the_containers(linked: Linked) -> None:
    elf = read_elf(linked("rela"))
    with pytest.raises(ValueError, match="contents for 2 containers, of 3"):
        rewrite_linked(elf, LESS[:2], may_have_kernels)


# -- objects -------------------------------------------------------------------------------------

OBJECT = """
.section .nv_fatbin,"a"
.align 8
first: .incbin "first.bin"
{more}
.section .nvFatBinSegment,"aw"
.align 8
.globl wrappers
wrappers:
.long 0x466243B1, 1
.quad first, 0
"""


def assemble(tool: Tool, folder: Path, *, more: str = "") -> bytes:
    (folder / "device.s").write_text(OBJECT.format(more=more))
    (folder / "first.bin").write_bytes(container(*FIRST))
    subprocess.run([tool("as"), "device.s", "-o", "device.o"], cwd=folder, check=True)
    return (folder / "device.o").read_bytes()


def test_an_object_gets_other_device_code(tmp_path: Path, tool: Tool) -> None:
    data = assemble(tool, tmp_path)
    done = rewrite_object(read_elf(data), MORE[:1], may_have_kernels)
    changed = b"".join(done.pieces)
    assert sections(changed)[".nv_fatbin"][1] == container(*(bytes(e.raw) for e in MORE[0]))
    back = rewrite_object(read_elf(changed), [entries(*FIRST)], may_have_kernels)
    assert b"".join(back.pieces) == data
    assert b"".join(rewrite_binary(memoryview(data), MORE[:1], may_have_kernels).pieces) == changed


def test_objects_that_cannot_be_edited(tmp_path: Path, tool: Tool) -> None:
    several = read_elf(assemble(tool, tmp_path, more='.incbin "first.bin"'))
    with pytest.raises(FormatError, match="2 fatbin containers in one object") as caught:
        rewrite_object(several, LESS[:2], may_have_kernels)
    assert "ld -r" in (caught.value.hint or "")
    relocatable = read_elf(assemble(tool, tmp_path, more='.section __nv_relfatbin,"a"\n.quad 0'))
    with pytest.raises(FormatError, match="relocatable device code"):
        rewrite_object(relocatable, LESS[:1], may_have_kernels)
    with pytest.raises(ValueError, match="contents for 2 containers, of 1"):
        rewrite_object(read_elf(assemble(tool, tmp_path)), LESS[:2], may_have_kernels)
