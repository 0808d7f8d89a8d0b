"""What a loader reads, against pyelftools and lief on libraries of this machine."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import lief
import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection

from fatwheel.errors import FormatError
from fatwheel.fatbin.loading import Loading, is_loadable, loading_of

from ...helpers import peimages

FOLDERS = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64")
MOST = 60


def libraries() -> list[Path]:
    """Some of this machine's, and a program."""
    found = [Path(folder, name) for folder in FOLDERS if os.path.isdir(folder)
             for name in sorted(os.listdir(folder)) if ".so" in name]  # fmt: skip
    real = sorted({path.resolve() for path in found if path.is_file()})[
        :: max(1, len(found) // MOST)
    ]
    program = shutil.which("python3") or "/bin/sh"
    return [*real, Path(os.path.realpath(program))]


def by_pyelftools(path: Path) -> Loading | None:
    with path.open("rb") as stream:
        if stream.read(7) != b"\x7fELF\2\1\1":
            return None
        elf = ELFFile(stream)
        said: dict[str, list[str]] = {}
        dynamic = elf.get_section_by_name(".dynamic")
        if not isinstance(dynamic, DynamicSection):
            return None
        for tag in dynamic.iter_tags():
            for kind in ("needed", "soname", "rpath", "runpath"):
                if hasattr(tag, kind):
                    said.setdefault(kind, []).append(getattr(tag, kind))
        versions: list[tuple[str, str]] = []
        offered: set[str] = set()
        for section in elf.iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for need, entries in section.iter_versions():
                    versions += [
                        (need.name, one.name) for one in entries if not one["vna_flags"] & 2
                    ]
            elif isinstance(section, GNUVerDefSection):
                offered |= {next(iter(names)).name for _, names in section.iter_versions()}

        def folders(kind: str) -> tuple[str, ...]:
            return tuple(filter(None, "".join(said.get(kind, [])[-1:]).split(":")))

        return Loading(
            "elf", {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}[elf["e_machine"]],
            tuple(said.get("needed", ())), "".join(said.get("soname", [])), folders("rpath"),
            folders("runpath"), tuple(versions), frozenset(offered),
        )  # fmt: skip


def test_libraries_of_this_machine() -> None:
    compared = 0
    for path in libraries():
        theirs = by_pyelftools(path)
        if theirs is not None:
            assert loading_of(memoryview(path.read_bytes())) == theirs, path
            compared += 1
    assert compared > 5


def test_a_dll_as_lief_reads_it() -> None:
    data = peimages.importing(["one.dll", "Two.DLL"])
    theirs = lief.PE.parse(list(data))
    assert isinstance(theirs, lief.PE.Binary)
    found = loading_of(memoryview(data))
    assert found.needed == tuple(str(one.name) for one in theirs.imports)
    assert (found.format, found.machine, found.signed) == ("pe", "x86_64", False)


@pytest.mark.parametrize(
    "head", [b"", b"text", b"\x7fELF\1\1\1", b"MZ" + bytes(100), b"\x7fELF\2\2\1"]
)
def test_what_no_loader_here_takes(head: bytes) -> None:
    assert not is_loadable(head)


def test_tables_of_versions_that_do_not_end(tmp_path: Path) -> None:
    """Each entry that leads to itself, or claims millions of others."""
    path = next(
        path for path in libraries() if (by_pyelftools(path) or Loading("", "", ())).versions
    )
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        need = next(s for s in elf.iter_sections() if isinstance(s, GNUVerNeedSection))
        offset, dynamic = need["sh_offset"], elf.get_section_by_name(".dynamic")["sh_offset"]
    for place, form, value in ((2, "<H", 0xFFFF), (8, "<I", 0x7FFFFFFF), (12, "<I", 0xFFFFFFF0)):
        data = bytearray(path.read_bytes())
        struct.pack_into(form, data, offset + place, value)
        for at in range(dynamic, dynamic + 16 * 64, 16):
            if struct.unpack_from("<Q", data, at)[0] == 0x6FFFFFFF:  # DT_VERNEEDNUM
                struct.pack_into("<Q", data, at + 8, 1 << 40)
        with pytest.raises(FormatError):
            loading_of(memoryview(bytes(data)))
