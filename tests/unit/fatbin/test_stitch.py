"""Stitching objects, with device code from data/device and host objects from g++."""

from __future__ import annotations

import io
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import lief
import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.errors import FormatError
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.fatbin.stitch import (
    image_name,
    nvcc_order,
    slices_of,
    stitch_object,
    without_device_code,
)

from ...helpers.coffobjects import COMPILERS, compile_object
from ...helpers.coffobjects import SOURCE as WINDOWS_SOURCE

DATA = Path(__file__).parents[2] / "data" / "device"
FATBIN = DATA / "none.fatbin"

SOURCE = r"""
__asm__(".section %s,\"a\"\n.align 8\nfatbinData: .incbin \"%s\"\n.previous");
extern "C" const char fatbinData[];
__attribute__((section(".nvFatBinSegment"))) const void *wrapper[2] = {nullptr, fatbinData};
int main() { return 0; }
"""


@pytest.fixture(scope="module")
def compile_host(
    tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]
) -> Callable[[str], bytes]:
    """Make an object as nvcc does, with the fatbin in a section of the given name."""

    def compile_(section: str) -> bytes:
        folder = tmp_path_factory.mktemp("host")
        (folder / "a.cpp").write_text(SOURCE % (section, FATBIN))
        subprocess.run([tool("g++"), "-c", "a.cpp", "-o", "a.o"], cwd=folder, check=True)
        return (folder / "a.o").read_bytes()

    return compile_


@pytest.fixture(scope="module")
def host(compile_host: Callable[[str], bytes]) -> bytes:
    return compile_host(".nv_fatbin")


@pytest.fixture(scope="module", params=COMPILERS)
def windows_host(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tool: Callable[[str], str],
) -> bytes:
    """An object for Windows with the same fatbin."""
    folder = tmp_path_factory.mktemp("windows")
    return compile_object(tool, folder, request.param, FATBIN.read_bytes())


def entry(image: bytes, number: int, *, kind: int = 2, flags: int = 0x11) -> Entry:
    header = (kind, 0x101, 64, len(image), 0, 0, 0, 0, number, 0, 0, flags, 0, 0)
    raw = struct.pack("<HHIQIIHHIIIQQQ", *header) + image
    (container,) = parse_containers(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw)
    return container.entries[0]


def test_slices_of_a_fatbin_and_of_an_object_are_the_same(host: bytes) -> None:
    (container,) = parse_containers(FATBIN.read_bytes())
    assert slices_of(FATBIN.read_bytes()) == container.entries
    assert slices_of(host) == container.entries


def test_an_object_without_its_code_gets_it_back(host: bytes) -> None:
    empty = without_device_code(host)
    section = ELFFile(io.BytesIO(empty)).get_section_by_name(".nv_fatbin")
    assert section.data() == b""
    assert len(empty) < len(host) - 17_000
    assert stitch_object(empty, slices_of(host)) == host


def test_entries_are_written_in_the_given_order(host: bytes) -> None:
    entries = slices_of(host)[::-1]
    data = ELFFile(io.BytesIO(stitch_object(host, entries)))
    section = data.get_section_by_name(".nv_fatbin").data()
    raw = b"".join(bytes(entry.raw) for entry in entries)
    assert section == struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw


def test_the_stitched_object_links(host: bytes, tmp_path: Path, tool: Callable[[str], str]) -> None:
    twice = slices_of(host) * 2
    (tmp_path / "a.o").write_bytes(stitch_object(host, twice))
    subprocess.run([tool("g++"), "a.o", "-o", "a"], cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "a"], check=False).returncode == 0
    linked = ELFFile(io.BytesIO((tmp_path / "a").read_bytes()))
    data = linked.get_section_by_name(".nv_fatbin").data()
    assert slices_of(data) == twice


def test_objects_for_windows_are_stitched_alike(windows_host: bytes) -> None:
    (container,) = parse_containers(FATBIN.read_bytes())
    assert slices_of(windows_host) == container.entries
    empty = without_device_code(windows_host)
    assert len(empty) < len(windows_host) - 17_000
    assert stitch_object(empty, slices_of(windows_host)) == windows_host
    reverse = stitch_object(empty, slices_of(windows_host)[::-1])
    assert slices_of(reverse) == slices_of(windows_host)[::-1]
    parsed = lief.COFF.parse(list(reverse))
    (data,) = [bytes(part.content) for part in parsed.sections if part.name == ".nv_fatb"]
    raw = b"".join(bytes(entry.raw) for entry in container.entries[::-1])
    assert data == struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw


def test_relocatable_device_code_for_windows_is_refused_by_name(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    source = WINDOWS_SOURCE.replace(".nv_fatb", "__nv_rel")
    obj = compile_object(tool, tmp_path, "clang", FATBIN.read_bytes(), source)
    for use in (slices_of, without_device_code, lambda data: stitch_object(data, ())):
        with pytest.raises(FormatError, match=r"relocatable device code.*is not supp") as caught:
            use(obj)
        assert caught.value.where == "section __nv_rel"


def test_only_objects_can_be_stitched() -> None:
    for use in (without_device_code, lambda data: stitch_object(data, ())):
        with pytest.raises(FormatError, match="neither an object for Linux"):
            use(FATBIN.read_bytes())


def test_relocatable_device_code_is_stitched_where_it_lies(
    compile_host: Callable[[str], bytes], tool: Callable[[str], str], tmp_path: Path
) -> None:
    """nvcc -rdc=true puts it into a section of its own."""
    obj = compile_host("__nv_relfatbin")
    entries = slices_of(obj)
    assert [bytes(one.raw) for one in entries] == [
        bytes(one.raw) for one in slices_of(FATBIN.read_bytes())
    ]
    (tmp_path / "stitched.o").write_bytes(stitch_object(without_device_code(obj), entries[:1]))
    subprocess.run(
        [tool("objcopy"), "-O", "binary", "-j", "__nv_relfatbin", "stitched.o", "section"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    raw = bytes(entries[0].raw)
    container = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw
    assert (tmp_path / "section").read_bytes() == container


def test_an_object_with_both_kinds_of_device_code_is_refused(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    """As `ld -r` makes it of several."""
    (tmp_path / "both.s").write_text(
        '.section .nv_fatbin,"a"\n.quad 0\n.section __nv_relfatbin,"a"\n.quad 0\n'
    )
    subprocess.run([tool("as"), "both.s", "-o", "both.o"], cwd=tmp_path, check=True)
    with pytest.raises(FormatError, match=r"2 \.nv_fatbin sections, not one"):
        slices_of((tmp_path / "both.o").read_bytes())


def test_an_object_without_fatbin_section_is_refused(compile_host: Callable[[str], bytes]) -> None:
    with pytest.raises(FormatError, match=r"0 \.nv_fatbin sections"):
        slices_of(compile_host(".other"))


def test_several_containers_are_refused() -> None:
    with pytest.raises(FormatError, match="2 fatbin containers, not one"):
        slices_of(FATBIN.read_bytes() * 2)
    with pytest.raises(FormatError, match="0 fatbin containers, not one"):
        slices_of(b"")


def test_order_is_ascending_and_a_cubin_comes_before_its_ptx() -> None:
    wanted = [("elf", "80"), ("ptx", "80"), ("elf", "86"), ("elf", "90"), ("elf", "90a")]
    wanted += [("elf", "100f"), ("elf", "120")]
    flags = {"": 0x11, "a": 0x100011, "f": 0x200011}
    entries = [
        entry(b"", int(name.rstrip("af")), kind={"elf": 2, "ptx": 1}[kind], flags=flags[suffix])
        for kind, name in wanted
        for suffix in [name.lstrip("0123456789")]
    ]
    for seed in range(20):
        shuffled = random.Random(seed).sample(entries, len(entries))
        assert [(e.kind, e.arch.name) for e in nvcc_order(shuffled)] == wanted


def test_images_are_named_as_users_know_them() -> None:
    names = [image_name(entry) for entry in slices_of(FATBIN.read_bytes())]
    assert names == ["sm_80", "compute_80", "sm_90a", "sm_120f"]
