"""Windows libraries with other device code, as Windows programs, binutils and LIEF see them.

The libraries come from the linkers that Linux has. A program loads each as it was and with other
device code, at the address that it wants and moved, and follows its wrappers as CUDA's runtime
does.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lief
import pytest

from fatwheel.decoders import may_have_kernels
from fatwheel.errors import FormatError
from fatwheel.fatbin.binary import read_binary, rewrite_binary
from fatwheel.fatbin.container import Entry
from fatwheel.fatbin.stitch import slices_of

from ..helpers import peimages
from .windows import Wine

Tool = Callable[[str], str]

DATA = Path(__file__).parent.parent / "data" / "device"
CLANG = ("clang", "--target=x86_64-pc-windows-msvc", "-g", "-gcodeview", "-O1", "-c", "unit.c")
LLD = ("lld-link", "/dll", "/noentry", "/nodefaultlib", "/out:unit.dll", "unit.o")
MINGW = ("x86_64-w64-mingw32-gcc", "-shared", "-o", "unit.dll", "unit.c")
BARE = (*MINGW, "-nostdlib", "-Wl,--entry=0")
# What makes a library of unit.c. In one that is never moved the device code is the last section.
LINKED: Mapping[str, Sequence[Sequence[str]]] = {
    "lld": (CLANG, LLD),
    "lld with debug directory": (CLANG, (*LLD, "/debug")),
    "lld with symbols": (CLANG, (*LLD, "/debug:symtab")),
    "lld with large alignment": (CLANG, (*LLD, "/filealign:4096")),
    "lld, never moved": (CLANG, (*LLD, "/fixed", "/dynamicbase:no", "/base:0x2a0000000")),
    "ld": ((*BARE, "-s"),),
    "ld with symbols": ((*BARE, "-g"),),
    "ld with C library": (MINGW,),
}
NEVER_MOVED = "lld, never moved"

UNIT = r"""
__asm__(".section .nv_fatb,\"dr\"\n.p2align 3\nfatbin0: .incbin \"payload0\"\n.p2align 4\n"
        "fatbin1: .incbin \"payload1\"\n.text\n");
extern const char fatbin0[], fatbin1[];
struct wrapper { unsigned magic, version; const char *data; void *other; };
__attribute__((section(".nvFatBi"))) struct wrapper wrappers[] = {
    {0x466243B1, 1, fatbin0, 0}, {0x466243B1, 1, fatbin1, 0}};
static const char *volatile words[] = {"host", "part"};
static int counter[2000] = {1};
__declspec(dllexport) const struct wrapper *get_wrappers(void) { return wrappers; }
__declspec(dllexport) const char *get_word(int index) { return words[index]; }
__declspec(dllexport) int count(void) { return ++counter[0] + counter[1999]++; }
"""

# For each library: whether it was moved, two words of the host's part, a number that it counts
# up, and its containers, into a file each.
READER = r"""
#include <stdio.h>
#include <windows.h>
struct wrapper { unsigned magic, version; const unsigned char *data; void *other; };
int main(int count, char **words) {
    for (int index = 1; index + 1 < count; index += 2) {
        HMODULE library = LoadLibraryA(words[index]);
        if (!library) return fprintf(stderr, "not loaded: %lu\n", GetLastError()), 1;
        const struct wrapper *(*get)(void) = (void *)GetProcAddress(library, "get_wrappers");
        const char *(*word)(int) = (void *)GetProcAddress(library, "get_word");
        int (*counted)(void) = (void *)GetProcAddress(library, "count");
        FILE *out = fopen(words[index + 1], "wb");
        for (int number = 0; number < 2; number++) {
            const unsigned char *data = get()[number].data;
            fwrite(data, 1, 16 + *(unsigned long long *)(data + 8), out);
        }
        fclose(out);
        counted();
        unsigned long long wanted = strtoull(words[count - 1], 0, 16);
        printf("%s %s %s %d\n", (unsigned long long)library == wanted ? "home" : "moved",
               word(0), word(1), counted());
    }
    return 0;
}
"""


@dataclass(frozen=True)
class Library:
    """A linked library, what it holds, and what it is to hold."""

    data: bytes
    contents: Sequence[Sequence[Entry]]
    thin: Sequence[Sequence[Entry]]
    fat: Sequence[Sequence[Entry]]


def rewritten(data: bytes, contents: Sequence[Sequence[Entry]]) -> bytes:
    return b"".join(rewrite_binary(memoryview(data), contents, may_have_kernels).pieces)


@pytest.fixture(scope="module", params=LINKED)
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tool: Tool
) -> Library:
    folder = tmp_path_factory.mktemp("library")
    plain = slices_of((DATA / "none.fatbin").read_bytes())
    packed = slices_of((DATA / "lz4.fatbin").read_bytes())
    contents = (plain[:2], packed[:2])
    for number, images in enumerate(contents):
        (folder / f"payload{number}").write_bytes(peimages.container(images))
    (folder / "unit.c").write_text(UNIT)
    for program, *options in LINKED[request.param]:
        done = subprocess.run(
            [tool(program), *options], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{program} failed:\n{done.stdout}{done.stderr}"
    data = (folder / "unit.dll").read_bytes()
    return Library(data, contents, thin=(plain[:1], ()), fat=(plain, packed))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    (folder / "reader.c").write_text(READER)
    command = [tool("x86_64-w64-mingw32-gcc"), "reader.c", "-o", "reader.exe"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "reader.exe"


def never_moved(data: bytes) -> bool:
    return not parsed(data).has_relocations


def parsed(data: bytes) -> lief.PE.Binary:
    binary = lief.PE.parse(list(data))
    assert binary is not None, "LIEF does not read it"
    return binary


def test_programs_find_the_new_device_code_at_home_and_moved(
    library: Library, tmp_path: Path, wine: Wine, reader: Path
) -> None:
    # Two loads of each library in a run: only one can be where it wants to be.
    twice = 1 if never_moved(library.data) else 2
    home = f"{parsed(library.data).optional_header.imagebase:x}"
    for name, contents in (
        ("old", library.contents), ("thin", library.thin), ("fat", library.fat),
    ):  # fmt: skip
        data = library.data if name == "old" else rewritten(library.data, contents)
        words: list[Path] = []
        for number in range(twice):
            (tmp_path / f"{name}{number}.dll").write_bytes(data)
            words += [tmp_path / f"{name}{number}.dll", tmp_path / f"{name}{number}.found"]
        done = wine.run(reader, *words, home)
        assert done.returncode == 0, f"{name} failed:\n{done.stdout}{done.stderr}"
        assert done.stdout.splitlines() == ["home host part 4", "moved host part 4"][:twice], name
        expected = b"".join(peimages.container(images) for images in contents)
        for found in words[1::2]:
            assert found.read_bytes() == expected, f"{found.name}: the wrappers lead elsewhere"


def test_nvidias_reader_for_windows_lists_the_new_images(
    library: Library, tmp_path: Path, cuobjdump_exe: Callable[..., str]
) -> None:
    for name, contents in (("thin", library.thin), ("fat", library.fat)):
        (tmp_path / f"{name}.dll").write_bytes(rewritten(library.data, contents))
        listed = re.findall(r"sm_\w+(?=\.cubin)", cuobjdump_exe("-lelf", tmp_path / f"{name}.dll"))
        images = [entry for entries in contents for entry in entries if entry.kind == "elf"]
        # Its names leave the f of sm_120f out.
        assert listed == [entry.arch.sm.removesuffix("f") for entry in images], name


def test_only_the_device_code_decides(library: Library) -> None:
    thin, fat = rewritten(library.data, library.thin), rewritten(library.data, library.fat)
    assert rewritten(fat, library.thin) == thin
    assert rewritten(thin, library.fat) == fat
    assert rewritten(thin, library.thin) == thin
    found = read_binary(memoryview(fat)).containers
    assert [[bytes(e.raw) for e in c.entries] for c in found] == [
        [bytes(e.raw) for e in entries] for entries in library.fat
    ]


def test_the_file_shrinks_by_what_is_dropped(library: Library) -> None:
    def size(contents: Sequence[Sequence[Entry]]) -> int:
        return sum(len(entry.raw) for entries in contents for entry in entries)

    dropped = size(library.contents) - size(library.thin)
    alignment = parsed(library.data).optional_header.file_alignment
    assert len(library.data) - len(rewritten(library.data, library.thin)) > dropped - alignment


def test_headers_agree_with_the_file(library: Library) -> None:
    new = rewritten(library.data, library.fat)
    before, after = parsed(library.data), parsed(new)
    old_sum = before.optional_header.checksum
    assert after.optional_header.checksum == (peimages.checksum(new) if old_sum else 0)
    if old_sum:
        assert peimages.checksum(library.data) == old_sum, "the linker computes it otherwise"
    assert [d.rva for d in after.data_directories] == [d.rva for d in before.data_directories]
    for old, now in zip(before.debug, after.debug, strict=True):
        assert now.pointerto_rawdata, "no debug data"
        assert (
            new[now.pointerto_rawdata :][: now.sizeof_data]
            == library.data[old.pointerto_rawdata :][: old.sizeof_data]
        )
    image = after.optional_header.sizeof_image
    alignment = after.optional_header.section_alignment
    end = max(s.virtual_address + s.virtual_size for s in after.sections)
    assert image == peimages.aligned(end, alignment)


def test_binutils_reads_the_same_symbols_relocations_and_sections(
    library: Library, tmp_path: Path, tool: Tool
) -> None:
    (tmp_path / "old.dll").write_bytes(library.data)
    (tmp_path / "new.dll").write_bytes(rewritten(library.data, library.fat))
    options = ("-t", "-p", "-r", "-s", "-j", ".rdata", "-j", ".text", "-j", ".data")
    texts = []
    for name in ("old.dll", "new.dll"):
        command = [tool("x86_64-w64-mingw32-objdump"), *options, name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert not done.stderr, f"objdump complains: {done.stderr}"
        texts.append([line for line in done.stdout.splitlines() if not expected_to_change(line)])
    assert texts[0] == texts[1]


def expected_to_change(line: str) -> bool:
    """Lines on sizes in the header, on the file itself, and on where debug data stands in it."""
    changing = ("SizeOfInit", "SizeOfUninit", "SizeOfImage", "CheckSum", "  2        CodeView")
    return line.startswith(changing) or "file format" in line


def test_a_real_linkers_library_is_refused_once_something_else_needs_the_device_code(
    tmp_path: Path, tool: Tool
) -> None:
    (tmp_path / "unit.c").write_text(
        UNIT + "__declspec(dllexport) const char *const again[] = {fatbin1};\n"
    )
    for number in range(2):
        (tmp_path / f"payload{number}").write_bytes(peimages.container(()))
    subprocess.run([tool(BARE[0]), *BARE[1:]], cwd=tmp_path, check=True)
    with pytest.raises(FormatError, match="no fatbin wrapper points into it"):
        rewritten((tmp_path / "unit.dll").read_bytes(), ((), ()))
