"""What kind of file it is, and which module reads or rewrites it; the modules have their own tests.

Files are a few bytes, put together by hand, or NVIDIA's (data/device).
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import lief
import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection

from fatwheel.decoders import may_have_kernels
from fatwheel.errors import FormatError
from fatwheel.fatbin.binary import (
    HEAD,
    AskedSymbol,
    Loading,
    asked_of,
    exports_of,
    imports_of,
    is_binary,
    is_loadable,
    loading_of,
    read_binary,
    rewrite_binary,
)
from fatwheel.fatbin.container import Entry

from ...helpers import peimages
from ...helpers.coffobjects import compile_object
from ...helpers.cudawheels import NONE, Linker
from ...helpers.deviceimages import TWO, container, entries, images, sm
from ...helpers.standins import DATA
from .test_pe import ONE, samples

Section = tuple[str, bytes]

IMAGES = (sm(80), sm(90))
FATBIN = container(*IMAGES)
RELOCATABLE = container(sm(80, TWO))
CUBIN = (DATA / "cuda12.4-sm_90a.cubin").read_bytes()


def elf(*sections: Section, type_: int = 3, machine: int = 62) -> bytes:
    """A 64-bit ELF file (gABI, chapters ELF Header and Sections) with sections of type PROGBITS."""
    every = [("", b""), *sections, (".shstrtab", b"")]
    names = b"".join(name.encode() + b"\0" for name, _ in every)
    body, table = b"", b""
    place = 0
    for name, content in [*every[:-1], (".shstrtab", names)]:
        kind = 0 if not name else 3 if name == ".shstrtab" else 1
        row = (place, kind, 0, 0, 64 + len(body), len(content), 0, 0, 1, 0)
        table += struct.pack("<IIQQQQIIQQ", *row)
        body += content
        place += len(name) + 1
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", type_, machine, 1, 0, 0,
                         64 + len(body), 0, 64, 0, 0, 64, len(every), len(every) - 1)  # fmt: skip
    return header + body + table


def coff(*sections: Section, machine: int = 0x8664) -> bytes:
    """An object of Windows (PE Format, chapters File Headers and Section Table)."""
    start = 20 + 40 * len(sections)
    table, body = b"", b""
    for name, content in sections:
        place = (0, 0, len(content), start + len(body), 0, 0, 0, 0, 0x40000040)
        table += struct.pack("<8sIIIIIIHHI", name.encode(), *place)
        body += content
    return struct.pack("<HHIIIHH", machine, len(sections), 0, 0, 0, 0, 0) + table + body


def pe(*sections: Section, machine: int = 0x8664) -> bytes:
    parts = [
        peimages.Part(name, 0x1000 * (1 + index), content)
        for index, (name, content) in enumerate(sections)
    ]
    return peimages.Image(parts, machine=machine).write()


MAKERS: dict[str, tuple[Callable[..., bytes], str, str]] = {
    "elf": (elf, ".nv_fatbin", "__nv_relfatbin"),
    "pe": (pe, ".nv_fatb", "__nv_rel"),
    "coff": (coff, ".nv_fatb", "__nv_rel"),
}


def held(data: bytes) -> tuple[list[list[str]], list[list[str]]]:
    """What runs and what it was linked from, such as `elf 80`."""
    binary = read_binary(memoryview(data))
    executable, relocatable = (
        [[f"{entry.kind} {entry.arch}" for entry in one.entries] for one in containers]
        for containers in (binary.containers, binary.relocatable)
    )
    return executable, relocatable


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (elf((".text", b"")), ("elf", "x86_64", True)),
        (elf(type_=2), ("elf", "x86_64", True)),
        (elf(type_=1), ("elf", "x86_64", False)),
        (elf(machine=183), ("elf", "aarch64", True)),
        (elf(machine=0x1234), ("elf", "machine 4660", True)),
        (pe((".text", b"\xc3")), ("pe", "x86_64", True)),
        (pe((".text", b"\xc3"), machine=0xAA64), ("pe", "aarch64", True)),
        (coff((".text", b"\xc3")), ("coff", "x86_64", False)),
        (coff((".text", b"\xc3"), machine=0xAA64), ("coff", "aarch64", False)),
        (container(), ("fatbin", "cuda", False)),
        (NONE, ("fatbin", "cuda", False)),
        (CUBIN, ("cubin", "cuda", False)),
    ],
)
def test_format_machine_and_whether_it_was_linked(
    data: bytes, expected: tuple[str, str, bool]
) -> None:
    binary = read_binary(memoryview(data))
    assert (binary.format, binary.machine, binary.linked) == expected


@pytest.mark.parametrize("kind", MAKERS)
def test_what_runs_and_what_it_was_linked_from(kind: str) -> None:
    make, executable, relocatable = MAKERS[kind]
    one, other = (executable, FATBIN + container()), (relocatable, RELOCATABLE)
    ran = [["elf 80", "elf 90"], []]
    assert held(make(one)) == (ran, [])
    assert held(make(one, other)) == (ran, [["elf 80"]])
    assert held(make(other, one)) == (ran, [["elf 80"]]), "the order of sections matters"
    assert held(make(other)) == ([["elf 80"]], []), "what is not linked yet is all there is"
    assert held(make((".text", b"\xc3"))) == ([], [])


@pytest.mark.parametrize("kind", MAKERS)
def test_a_second_section_of_device_code_is_refused(kind: str) -> None:
    make, executable, relocatable = MAKERS[kind]
    for name in (executable, relocatable):
        data = make((executable, FATBIN), (name, FATBIN), (name, FATBIN))
        with pytest.raises(FormatError, match=r"[23] sections named"):
            read_binary(memoryview(data))


def test_a_library_with_a_section_emptied_by_rewriting_is_read() -> None:
    """The old section of a PE image keeps its name and addresses, but no bytes."""
    data = bytearray(pe((".nv_fatb", b""), (".rdata", b"1"), (".nv_fatb", FATBIN)))
    table = int.from_bytes(data[60:64], "little") + 24 + 240
    struct.pack_into("<I", data, table + 8, 512)
    assert held(bytes(data)) == ([["elf 80", "elf 90"]], [])


def test_a_cubin_has_no_containers_whatever_its_sections_are_called() -> None:
    assert held(elf((".nv_fatbin", FATBIN), type_=2, machine=190)) == ([], [])


NO_SECTIONS = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, 0, 0, 0, 0, 64, *[0] * 5)
FOR_X86 = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 3, 3, 1, 0, 52, 0, 0, 52, *[0] * 5)
BIG_ENDIAN = struct.pack(">16sHHIQQQIHHHHHH", b"\x7fELF\2\2\1", 2, 21, 1, *[0] * 10)


@pytest.mark.parametrize(
    ("data", "machine"), [(NO_SECTIONS, "x86_64"), (FOR_X86, "x86"), (BIG_ENDIAN, "ppc64")]
)
def test_elf_files_in_which_nothing_is_looked_up_are_refused_only_if_a_container_is_in_them(
    data: bytes, machine: str
) -> None:
    binary = read_binary(memoryview(data))
    assert (binary.format, binary.machine, binary.linked) == ("elf", machine, True)
    assert binary.containers == binary.relocatable == ()
    for place in (0, 5000, (1 << 20) - len(data) - 3):  # the last: on the border of two reads
        with pytest.raises(FormatError, match="device code that cannot be read is in it"):
            read_binary(memoryview(data + bytes(place) + FATBIN))
    almost = bytearray(FATBIN)
    almost[4] = 9  # no version of containers
    assert read_binary(memoryview(data + almost)).containers == ()


def test_imports_and_exports_of_files_for_other_machines_are_not_looked_up() -> None:
    for data in (FOR_X86, BIG_ENDIAN):
        assert imports_of(memoryview(data)) == exports_of(memoryview(data)) == ()


def test_a_cubin_for_32_bits_is_refused() -> None:
    data = bytearray(FOR_X86)
    data[18:20] = (190).to_bytes(2, "little")
    with pytest.raises(FormatError, match="only 64-bit"):
        read_binary(memoryview(data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a kind of file that is known here"),
        (b"#!/bin/sh\n", "not a kind of file"),
        (b"MZ" + bytes(70), "not a kind of file"),  # a program for DOS
        (b"!<arch>\n/               ", r"ar x FILE"),
        (b"\x7fELF\2\1\1" + bytes(50), "header is cut off"),
        (b"\x7fEL", "not a kind of file"),
        (FATBIN[:3], "not a kind of file"),
        (FATBIN[:15], "cut off"),
    ],
)
def test_what_is_not_read_here_is_refused_by_all(data: bytes, said: str) -> None:
    view = memoryview(data)
    calls: Sequence[Callable[[], object]] = (
        lambda: read_binary(view),
        lambda: rewrite_binary(view, [()], may_have_kernels),
    )
    for call in calls:
        with pytest.raises(FormatError) as caught:
            call()
        caught.match(said)


# -- looking for binaries ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (elf(), True),
        (CUBIN, True),
        (FATBIN, True),
        (pe((".text", b"\xc3")), True),
        (coff((".nv_fatb", FATBIN)), False),  # nothing to be known by
        (b"MZ" + bytes(70), False),
        (b"MZ", False),
        (b"", False),
        (b"\x7fEL", False),
        (b"import torch\n", False),
        (b"PK\3\4", False),
    ],
)
def test_binaries_are_known_by_how_they_begin(data: bytes, expected: bool) -> None:
    assert is_binary(data[:HEAD]) is expected


def test_a_pe_header_may_stand_anywhere_in_the_head() -> None:
    for start, expected in ((64, True), (HEAD - 4, True), (HEAD - 3, False), (1 << 31, False)):
        head = (b"MZ" + bytes(58) + struct.pack("<I", start)).ljust(min(start, HEAD), b"\0")
        assert is_binary((head + b"PE\0\0")[:HEAD]) is expected, start


# -- imports and exports -------------------------------------------------------------------------


def test_imports_and_exports_of_a_windows_library() -> None:
    data = memoryview(peimages.library(entries(*IMAGES)).write())
    assert imports_of(data) == (*peimages.IMPORTED, *peimages.DELAYED)
    assert exports_of(data) == peimages.EXPORTED


def test_imports_and_exports_of_a_linux_library(
    tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]
) -> None:
    linker = Linker(tmp_path_factory.mktemp("linker"), tool)
    data = memoryview(linker.library(FATBIN, ["PyInit__C"], ["libc10.so", "libcudart.so.13"]))
    assert imports_of(data) == ("libc10.so", "libcudart.so.13")
    assert exports_of(data) == ("PyInit__C",)


@pytest.mark.parametrize("data", [FATBIN, CUBIN, coff((".text", b"")), elf(type_=1)])
def test_what_was_not_linked_has_neither(data: bytes) -> None:
    assert imports_of(memoryview(data)) == exports_of(memoryview(data)) == ()


# -- rewriting -----------------------------------------------------------------------------------


def rewritten(data: bytes, *contents: Sequence[Entry]) -> bytes:
    return b"".join(rewrite_binary(memoryview(data), contents, may_have_kernels).pieces)


def test_a_fatbin_is_its_containers_without_what_was_between_them() -> None:
    one, other = entries(*IMAGES)
    data = container(*IMAGES) + bytes(40) + container(sm(75, TWO)) + bytes(3)
    assert rewritten(data, [other], []) == container(IMAGES[1]) + container()
    assert rewritten(data, [one, other], entries(sm(75, TWO))) == FATBIN + container(sm(75, TWO))


def test_containers_of_a_fatbin_are_aligned() -> None:
    """CUDA reads fields of 8 bytes in place, whatever sizes images claim to have."""
    odd = bytearray(sm(80))
    odd += b"odd"
    struct.pack_into("<Q", odd, 8, len(odd) - 64)
    data = container(bytes(odd)) + container(sm(80, TWO))
    new = rewritten(data, entries(bytes(odd)), entries(sm(80, TWO)))
    assert new == container(bytes(odd)) + bytes(-len(odd) % 8) + container(sm(80, TWO))
    assert images(new) == [["elf 80"], ["elf 80"]]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_contents_for_another_number_of_containers_are_a_bug(count: int) -> None:
    with pytest.raises(ValueError, match=f"contents for {count} containers, of 2"):
        rewritten(FATBIN + FATBIN, *[[]] * count)


def test_a_rewritten_fatbin_consists_of_views_of_the_old_one() -> None:
    data = memoryview(container(sm(80, code=bytes(1 << 20)), sm(90)))
    (held,) = read_binary(data).containers
    new = rewrite_binary(data, [held.entries[:1]], may_have_kernels)
    assert new.size > 1 << 20
    assert sum(len(piece) for piece in new.pieces if isinstance(piece, bytes)) < 64
    assert new.notes == ()


def test_a_cubin_cannot_be_rewritten() -> None:
    with pytest.raises(FormatError, match="a cubin is one image"):
        rewritten(CUBIN)


@pytest.mark.parametrize("kind", ["coff", "pe"])
def test_others_are_rewritten_by_the_module_for_their_format(
    kind: str, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """Each takes out one image and leaves a file of its kind. ELF: test_elf_linked.py."""
    if kind == "coff":
        data = compile_object(tool, tmp_path, "mingw", FATBIN)
    else:
        data = replace(peimages.library(entries(*IMAGES)), tail=b"", symbols=False).write()
    new = rewritten(data, entries(*IMAGES)[1:])
    assert held(new) == ([["elf 90"]], [])
    assert read_binary(memoryview(new)).format == kind
    assert len(new) < len(data)


@pytest.mark.parametrize("shift", [0, 16, len(FATBIN) - 1])
def test_sections_of_device_code_that_share_bytes_are_refused(shift: int) -> None:
    """Else their containers would count twice."""
    data = bytearray(elf((".nv_fatbin", FATBIN), ("__nv_relfatbin", FATBIN)))
    assert len(read_binary(memoryview(data)).relocatable) == 1
    [table] = struct.unpack_from("<Q", data, 40)
    struct.pack_into("<Q", data, table + 2 * 64 + 24, 64 + shift)
    with pytest.raises(FormatError, match=r"sections .nv_fatbin and __nv_relfatbin overlap"):
        read_binary(memoryview(data))


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
    """Entries that lead out of the file, or claim others that there are not."""
    path = next(
        path
        for path in sorted(libraries(), key=lambda one: one.stat().st_size)
        if (by_pyelftools(path) or Loading("", "", ())).versions
    )
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        need = next(s for s in elf.iter_sections() if isinstance(s, GNUVerNeedSection))
        offset, dynamic = need["sh_offset"], elf.get_section_by_name(".dynamic")["sh_offset"]
    sound = path.read_bytes()
    more = sound[: offset + 2] + b"\xff\xff" + sound[offset + 4 :]
    assert loading_of(memoryview(more)) == loading_of(memoryview(sound)), "the last has no next"
    for place, form, value in ((8, "<I", 0x7FFFFFFF), (12, "<I", 0xFFFFFFF0)):
        data = bytearray(sound)
        struct.pack_into(form, data, offset + place, value)
        for at in range(dynamic, dynamic + 16 * 64, 16):
            if struct.unpack_from("<Q", data, at)[0] == 0x6FFFFFFF:  # DT_VERNEEDNUM
                struct.pack_into("<Q", data, at + 8, 1 << 40)
        with pytest.raises(FormatError):
            loading_of(memoryview(bytes(data)))


SOURCE = """
extern int PyOne_Function(void), _ZN2at3twoEv(void);
extern int three;
extern int perhaps(void) __attribute__((weak));
int own(void) { return PyOne_Function() + _ZN2at3twoEv() + three + (perhaps ? perhaps() : 0); }
"""


@pytest.mark.parametrize(
    "option", ["-Wl,--hash-style=gnu", "-Wl,--hash-style=sysv", "-s", "-fuse-ld=lld", "-nostdlib"]
)
def test_an_elf_library_asks_for_its_undefined_symbols(
    option: str, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    (tmp_path / "a.c").write_text(SOURCE)
    command = [tool("gcc"), "-shared", "-fPIC", option, "a.c", "-o", "a.so"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = {one.name: one for one in asked_of(memoryview((tmp_path / "a.so").read_bytes()))}
    wanted = {name for name in found if not found[name].optional}
    assert {"PyOne_Function", "_ZN2at3twoEv", "three"} <= wanted
    assert found["perhaps"].optional
    assert "own" not in found


def test_an_object_and_other_files_ask_for_nothing() -> None:
    for data in (b"", b"\x7fELF", b"\x7fELF\1\1\1" + bytes(100), b"text"):
        assert asked_of(memoryview(data)) == ()


def test_a_pe_library_asks_each_library_for_names_as_lief_reads_them() -> None:
    for data in samples():
        theirs = lief.PE.parse(list(data))
        assert isinstance(theirs, lief.PE.Binary)
        wanted = [
            AskedSymbol(str(entry.name), str(library.name), delayed)
            for libraries, delayed in ((theirs.imports, False), (theirs.delay_imports, True))
            for library in libraries
            for entry in library.entries
            if not entry.is_ordinal
        ]
        assert list(asked_of(memoryview(data))) == wanted


def test_a_pe_library_made_by_hand() -> None:
    found = asked_of(memoryview(peimages.library(ONE).write()))
    assert found == tuple(
        AskedSymbol("function", library, library in peimages.DELAYED)
        for library in (*peimages.IMPORTED, *peimages.DELAYED)
    )


def test_a_name_that_does_not_end_is_refused() -> None:
    data = bytearray(peimages.library(ONE).write())
    place = data.index(b"\0\0function\0")
    thunk = data.index(struct.pack("<Q", peimages_address(data, place)))
    struct.pack_into("<Q", data, thunk, 0x7FFFFFFF)
    with pytest.raises(FormatError):
        asked_of(memoryview(bytes(data)))


def test_names_that_share_bytes_are_not_gigabytes() -> None:
    """17,000 words of 8 bytes, each the address of the same name of 4000."""
    start, thunks = 0x1000, struct.pack("<Q", 0x1100) * 17_000
    head = struct.pack("<IIIII", 0x2200, 0, 0, 0x1080, 0x2200).ljust(0x80, b"\0")
    names = (head + b"one.dll").ljust(0x102, b"\0") + b"n" * 4000
    content = names.ljust(0x1200, b"\0") + thunks + bytes(8)
    image = peimages.Image([peimages.Part(".rdata", start, content)], {1: (start, 40)})
    with pytest.raises(FormatError, match="names are longer than"):
        asked_of(memoryview(image.write()))


def peimages_address(data: bytearray, place: int) -> int:
    """The address at which the byte at a place of the file is loaded."""
    image = lief.PE.parse(list(data))
    assert isinstance(image, lief.PE.Binary)
    return int(image.offset_to_virtual_address(place)) - peimages.BASE
