"""Binaries of all formats as sections."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import lief
import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.compare.sections import between, read_host, read_object
from fatwheel.errors import FormatError
from fatwheel.fatbin.container import parse_containers

from ...helpers import peimages
from ...helpers.coffobjects import COMPILERS, compile_object
from ...helpers.cudawheels import NONE
from ...helpers.elflibraries import LIBRARY, link

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
