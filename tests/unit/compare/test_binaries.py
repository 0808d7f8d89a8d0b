"""Binaries of all formats as sections."""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lief
import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.compare.binaries import (
    between,
    differing_binaries,
    may_be_binary,
    read_host,
    read_object,
)
from fatwheel.compare.device import Slices
from fatwheel.compare.differences import Difference, Position
from fatwheel.errors import FormatError
from fatwheel.fatbin.container import parse_containers

from ...helpers import peimages
from ...helpers.coffobjects import COMPILERS, compile_object
from ...helpers.cudawheels import NONE, changed, images
from ...helpers.deviceimages import container, cubin, sm
from ...helpers.elflibraries import LIBRARY, link, sections

Tool = Callable[[str], str]


def test_elf_sections_are_those_of_pyelftools(tool: Tool, tmp_path: Path) -> None:
    data = link(tool, tmp_path, LIBRARY)
    host = read_host(memoryview(data))
    assert host is not None
    oracle = {s.name: s for s in ELFFile(io.BytesIO(data)).iter_sections() if s.name}
    assert host.sections.keys() == oracle.keys()
    for name, section in host.sections.items():
        assert section.size == oracle[name]["sh_size"], name
        assert section.address == oracle[name]["sh_addr"], name
        if oracle[name]["sh_type"] != "SHT_NOBITS":
            assert bytes(section.content) == oracle[name].data(), name
    assert host.sections[".text"].code
    assert host.sections[".nv_fatbin"].device
    assert not host.sections[".comment"].loaded
    ranks = [host.sections[name].rank for name in (".nv_fatbin", ".text", ".data", ".dynsym")]
    assert ranks == sorted(ranks)


def test_pe_sections_are_those_of_lief() -> None:
    data = peimages.library(parse_containers(NONE)[0].entries).write()
    host = read_host(memoryview(data))
    assert host is not None
    oracle = peimages.parsed(data)
    assert list(host.sections) == [section.name for section in oracle.sections]
    for section in oracle.sections:
        assert host.sections[str(section.name)].size == section.virtual_size
    assert host.sections[".nv_fatb"].device
    assert isinstance(oracle, lief.PE.Binary)


@pytest.mark.parametrize("compiler", [name for name in COMPILERS if name != "clang"])
def test_all_of_an_object_is_in_a_section(tool: Tool, tmp_path: Path, compiler: str) -> None:
    data = compile_object(tool, tmp_path, compiler, NONE)
    host = read_object(memoryview(data))
    assert host.sections[".nv_fatb"].device
    assert b"get_wrapper" in bytes(host.sections["strings"].content) + bytes(
        host.sections["symbols"].content
    )
    covered = sum(end - start for start, end in host.ranges)
    headers = host.headers + 40 * len([n for n in host.sections if n[0] == "."])
    assert covered > len(data) - headers - 100, "some of the object is in no section"


def test_what_is_in_no_section(tool: Tool, tmp_path: Path) -> None:
    data = link(tool, tmp_path, LIBRARY)
    host = read_host(memoryview(data))
    assert host is not None
    gaps = between(host)
    assert gaps[0][0] == 0
    assert gaps[-1][1] == len(data)
    inside = sum(end - start for start, end in host.ranges)
    assert sum(end - start for start, end in gaps) + inside == len(data)


def test_names_that_are_there_again_have_a_number(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "a.s").write_text(
        '.section .text.a,"axG",@progbits,one,comdat\nret\n'
        '.section .text.a,"axG",@progbits,two,comdat\nret\nret\n'
    )
    subprocess.run([tool("as"), "a.s", "-o", "a.o"], cwd=tmp_path, check=True)
    host = read_host(memoryview((tmp_path / "a.o").read_bytes()))
    assert host is not None
    sizes = {name: section.size for name, section in host.sections.items() if "text.a" in name}
    assert sizes == {".text.a": 1, ".text.a #2": 2}


def test_nothing_else_has_sections() -> None:
    assert read_host(memoryview(NONE)) is None
    with pytest.raises(FormatError):
        read_host(memoryview(b"\x7fELF"))


PLACE = Position("a.so")


def told(one: bytes, other: bytes) -> list[Difference]:
    data = memoryview(one), memoryview(other)
    return list(differing_binaries(PLACE, data, (Slices(None), Slices(None))))


def levels(found: list[Difference]) -> list[tuple[str, str]]:
    return [(each.level, each.place.section) for each in found]


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.fixture
def library(tool: Tool, tmp_path: Path) -> bytes:
    return link(tool, tmp_path, LIBRARY, first=container(sm(80)), second=container(sm(90)))


def place_of(data: bytes, section: str) -> int:
    return data.index(sections(data)[section][1])


# -- linked for Linux ----------------------------------------------------------------------------


def test_device_code_alone(library: bytes) -> None:
    found = told(library, flipped(library, library.rindex(b"code")))
    assert levels(found) == [("binary", ""), ("section", ".nv_fatbin"), ("kernel", ".nv_fatbin")]
    assert found[0].what == "its device code differs; the host's part is the same"
    assert (found[2].place.container, found[2].place.image) == (2, "sm_90")


def test_the_host_s_part_alone(library: bytes) -> None:
    found = told(library, library.replace(b"thrown\0", b"shrown\0"))
    assert levels(found)[:2] == [("binary", ""), ("section", found[1].place.section)]
    assert found[1].place.section.startswith(".rodata")
    assert found[0].what == "the host's part differs; its device code is the same"
    assert found[1].one == "thrown"


@pytest.mark.parametrize("section", [".comment", ".strtab"])
def test_what_is_not_loaded(library: bytes, section: str) -> None:
    found = told(library, flipped(library, place_of(library, section) + 3))
    assert levels(found) == [("binary", ""), ("section", section)]
    assert found[0].what.startswith("only sections that are not loaded differ")


def test_debug_information(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int a;\n")

    def compiled(folder: str) -> bytes:
        mapped = f"-ffile-prefix-map={tmp_path}={folder}"
        command = [tool("gcc"), "-g", "-shared", "-nostdlib", mapped, "a.c", "-o", "a.so"]
        subprocess.run(command, cwd=tmp_path, check=True)
        return (tmp_path / "a.so").read_bytes()

    found = told(compiled("/home/one/project"), compiled("/home/two/project"))
    assert found[0].what == "only its debug information differs"
    assert {each.level for each in found} == {"binary", "section"}
    assert all(each.place.section.startswith(".debug") for each in found[1:])
    strings = [(each.one, each.other) for each in found if each.one]
    assert ("/home/one/project", "/home/two/project") in strings, found


def test_a_build_id_follows_from_the_rest(library: bytes) -> None:
    place = place_of(library, ".note.gnu.build-id") + 20
    alone = told(library, flipped(library, place))
    assert levels(alone)[1:] == [("section", ".note.gnu.build-id")]
    both = told(library, flipped(flipped(library, place), place_of(library, ".comment") + 3))
    assert levels(both)[1:] == [("section", ".comment")]


def test_headers_and_padding(library: bytes) -> None:
    table = struct.unpack_from("<Q", library, 40)[0]
    # the header's flags; a section's field that nothing else shows; the padding before .text
    for place, what in ((48, "the headers"), (table + 64 + 56, "the section table")):
        found = told(library, flipped(library, place))
        assert levels(found) == [("binary", ""), ("section", "")], what
        assert found[1].what == f"{what}: the first byte that differs is {place:#x}"
    text = place_of(library, ".text")
    gap = max(
        place_of(library, name) + len(content)
        for name, (_, content) in sections(library).items()
        if content and name != ".bss" and place_of(library, name) < text
    )
    if gap < text and not library[gap]:
        [_, found_gap] = told(library, flipped(library, gap))
        assert found_gap.what.startswith("bytes between its sections")


def test_symbols_that_cannot_be_read_hide_no_other_section(library: bytes) -> None:
    """Here their names are said to lie in a section that is not there."""
    found = told(library, flipped(flipped(library, place_of(library, ".text")),
                                  place_of(library, ".comment") + 3))  # fmt: skip
    assert levels(found)[1][1] == ".text"
    table = struct.unpack_from("<Q", library, 40)[0]
    headers = [table + n * 64 for n in range(struct.unpack_from("<H", library, 60)[0])]
    [symtab] = [at for at in headers if struct.unpack_from("<I", library, at + 4)[0] == 2]
    broken = library[: symtab + 40] + b"\xff" * 4 + library[symtab + 44 :]
    changed_too = flipped(
        flipped(broken, place_of(library, ".text")), place_of(library, ".comment") + 3
    )
    found = told(broken, changed_too)
    assert ("section", ".comment") in levels(found)
    assert "its symbols cannot be read (malformed symbol table)" in [e.what for e in found]


def test_a_section_that_only_one_has(library: bytes, tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(library)
    (tmp_path / "x").write_bytes(b"12345")
    command = [tool("objcopy"), "--add-section", ".extra=x", "a.so", "b.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = told(library, (tmp_path / "b.so").read_bytes())
    assert ("section", ".extra") in levels(found)
    [extra] = [each for each in found if each.place.section == ".extra"]
    assert extra.what == "only in the second: 5 bytes"


# -- other formats -------------------------------------------------------------------------------


def pe(device: bytes = NONE, **how: Any) -> bytes:
    image = peimages.library(parse_containers(device)[0].entries)
    return peimages.replace(image, **how).write()


def test_pe_device_code() -> None:
    found = told(pe(), pe(changed(2, b"scale", b"shape")))
    assert levels(found)[:2] == [("binary", ""), ("section", ".nv_fatb")]
    assert {each.place.image for each in found[2:]} == {"sm_90a"}
    assert {(each.what, each.place.symbol) for each in found if each.level == "kernel"} == {
        ("only in the first", "scale"), ("only in the second", "shape"),
    }  # fmt: skip


def test_pe_time_and_checksum() -> None:
    data = pe(checksum=7)
    time = data.index(b"PE\0\0") + 8
    later = data[:time] + struct.pack("<I", 0x12345678) + data[time + 4 :]
    found = told(data, later)
    assert levels(found) == [("binary", ""), ("section", "")]
    assert found[1].what == "the headers' time, or a hash in its place"
    assert (found[1].one, found[1].other) == ("0x5f000000", "0x12345678")
    other_sum = pe(checksum=8)
    [_, only] = told(data, other_sum)
    assert (only.what, only.one) == ("the headers' checksum", "0x7")
    both = told(later, other_sum)
    assert [each.what for each in both[1:]] == [found[1].what], "the checksum follows"


def test_pe_host_code() -> None:
    data = pe()
    image = peimages.library(parse_containers(NONE)[0].entries)
    found = told(data, flipped(data, image.offset(".text")))
    assert levels(found) == [("binary", ""), ("section", ".text")]


def test_an_object_for_windows(tool: Tool, tmp_path: Path) -> None:
    data = compile_object(tool, tmp_path, "mingw", NONE)
    place = data.index(images(NONE)[1]) + 100
    found = told(data, flipped(data, place))
    assert levels(found)[:2] == [("binary", ""), ("section", ".nv_fatb")]
    assert found[2].place.image == "compute_80"


def test_fatbins_and_cubins_by_themselves() -> None:
    found = told(container(sm(80)), container(sm(80, code=b"more")))
    assert [(each.level, each.place.image) for each in found] == [
        ("binary", ""), ("kernel", "sm_80"),
    ]  # fmt: skip
    found = told(cubin(80, {"a": []}), cubin(80, {"a": []}, b"more"))
    assert [(each.level, each.place.symbol) for each in found] == [("binary", ""), ("kernel", "a")]


def test_another_format() -> None:
    [found] = told(container(sm(80)), cubin(80, {"a": []}))
    assert (found.level, found.what) == ("binary", "fatbin became cubin")


def test_a_binary_that_cannot_be_read_is_compared_as_bytes(library: bytes) -> None:
    [found] = told(library, library[:5000])
    assert found.level == "binary"
    assert found.what.startswith("it cannot be read (")
    assert f"{len(library)} bytes became 5000" in found.what


def test_what_is_looked_into() -> None:
    assert may_be_binary("a.so", b"\x7fELF")
    assert may_be_binary("a.bin", NONE[:100])
    assert not may_be_binary("a.py", b"import x\n")
    obj = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 0, 0)
    assert may_be_binary("a.OBJ", obj)
    assert not may_be_binary("a.dat", obj)
