"""Stitched objects for Windows, linked by the linkers there are, loaded by a Windows program."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import lief
import pytest

from fatwheel.decoders import may_have_kernels
from fatwheel.fatbin.binary import read_binary, rewrite_binary
from fatwheel.fatbin.container import Entry
from fatwheel.fatbin.stitch import nvcc_order, slices_of, stitch_object, without_device_code

from ..helpers.coffobjects import SOURCE, compile_object
from .windows import Wine

Tool = Callable[[str], str]

DATA = Path(__file__).parent.parent / "data" / "device"

LINKERS = {
    "lld-link": ("lld-link", "/dll", "/noentry", "/nodefaultlib", "/out:unit.dll"),
    "ld": ("x86_64-w64-mingw32-gcc", "-shared", "-nostdlib", "-Wl,--entry=0", "-o", "unit.dll"),
}

# All but clang's object for GNU ld, which does not know Microsoft's way to say what is exported.
LINKED = [
    ("clang", "lld-link"),
    ("mingw", "lld-link"),
    ("mingw-bigobj", "lld-link"),
    ("mingw", "ld"),
    ("mingw-bigobj", "ld"),
]

# Follows the wrapper that the library's function gives, as CUDA's runtime does.
READER = r"""
#include <stdio.h>
#include <windows.h>
struct wrapper { unsigned magic, version; const unsigned char *data; void *other; };
int main(int count, char **words) {
    HMODULE library = LoadLibraryA(words[1]);
    if (!library) return fprintf(stderr, "not loaded: %lu\n", GetLastError()), 1;
    const struct wrapper *(*get)(void) = (void *)GetProcAddress(library, words[2]);
    const struct wrapper *wrapper = get();
    FILE *out = fopen(words[3], "wb");
    unsigned long long size = *(unsigned long long *)(wrapper->data + 8);
    fwrite(wrapper->data, 1, 16 + size, out);
    fclose(out);
    printf("%08X %u\n", wrapper->magic, wrapper->version);
    return 0;
}
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    (folder / "reader.c").write_text(READER)
    command = [tool("x86_64-w64-mingw32-gcc"), "reader.c", "-o", "reader.exe"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "reader.exe"


def entries() -> tuple[Entry, ...]:
    """Images of two fatbins: sm_80 and its PTX as they are, sm_90a and sm_120f compressed."""
    plain = slices_of((DATA / "none.fatbin").read_bytes())
    packed = slices_of((DATA / "lz4.fatbin").read_bytes())
    return nvcc_order([*packed[2:], *plain[:2]])


def one_container(images: Sequence[Entry]) -> bytes:
    raw = b"".join(bytes(image.raw) for image in images)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw


def stitched(tool: Tool, folder: Path, compiler: str, source: str = SOURCE) -> bytes:
    """A unit's object that was compiled with one image, with all of them in it."""
    first = one_container(entries()[:1])
    host = without_device_code(compile_object(tool, folder, compiler, first, source))
    return stitch_object(host, entries())


def link(tool: Tool, folder: Path, linker: str, *objects: str) -> bytes:
    program, *options = LINKERS[linker]
    done = subprocess.run(
        [tool(program), *options, *objects], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{linker} failed:\n{done.stdout}{done.stderr}"
    assert not done.stderr, f"{linker} complains:\n{done.stderr}"
    return (folder / "unit.dll").read_bytes()


def fatbin_of(library: bytes) -> bytes:
    """The section's bytes, as LIEF reads them; linkers add zeros."""
    parsed = lief.PE.parse(list(library))
    assert parsed is not None, "LIEF does not read the library"
    (section,) = [part for part in parsed.sections if part.name == ".nv_fatb"]
    return bytes(section.content)


def assert_holds(library: bytes, container: bytes) -> None:
    found = fatbin_of(library)
    assert found[: len(container)] == container, "the section holds something else"
    assert not any(found[len(container) :]), "the section holds more"


@pytest.mark.parametrize(("compiler", "linker"), LINKED)
def test_the_linked_library_holds_the_union(
    tool: Tool, tmp_path: Path, wine: Wine, reader: Path, compiler: str, linker: str
) -> None:
    (tmp_path / "unit.obj").write_bytes(stitched(tool, tmp_path, compiler))
    union = one_container(entries())
    assert_holds(link(tool, tmp_path, linker, "unit.obj"), union)
    done = wine.run(reader, tmp_path / "unit.dll", "get_wrapper", tmp_path / "found")
    assert done.stdout == "466243B1 1\n", f"the program failed:\n{done.stdout}{done.stderr}"
    assert (tmp_path / "found").read_bytes() == union, "the wrapper leads elsewhere"


@pytest.mark.parametrize(("compiler", "linker"), [("clang", "lld-link"), ("mingw", "ld")])
def test_a_library_of_several_units(
    tool: Tool, tmp_path: Path, wine: Wine, reader: Path, compiler: str, linker: str
) -> None:
    """Their containers lie in one section, and each wrapper leads to its own."""
    other = SOURCE
    for name in ("get_wrapper", "longer", "count"):
        other = other.replace(name, f"other_{name}")
    other = other.replace("struct wrapper wrapper", "static struct wrapper wrapper")
    (tmp_path / "one.obj").write_bytes(stitched(tool, tmp_path, compiler))
    (tmp_path / "two.obj").write_bytes(
        stitch_object(stitched(tool, tmp_path, compiler, other), entries()[1:])
    )
    library = link(tool, tmp_path, linker, "one.obj", "two.obj")
    binary = read_binary(memoryview(library))
    assert [len(container.entries) for container in binary.containers] == [4, 3]
    for function, images in {"get_wrapper": entries(), "other_get_wrapper": entries()[1:]}.items():
        done = wine.run(reader, tmp_path / "unit.dll", function, tmp_path / "found")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "found").read_bytes() == one_container(images), function


@pytest.mark.parametrize(("compiler", "linker"), LINKED)
def test_a_thinned_object_links_to_a_smaller_library(
    tool: Tool, tmp_path: Path, compiler: str, linker: str
) -> None:
    fat = stitched(tool, tmp_path, compiler)
    binary = read_binary(memoryview(fat))
    assert (binary.format, binary.machine, binary.linked) == ("coff", "x86_64", False)
    kept = binary.containers[0].entries[:1]
    (tmp_path / "unit.obj").write_bytes(fat)
    before = link(tool, tmp_path, linker, "unit.obj")
    thin = b"".join(rewrite_binary(memoryview(fat), [kept], may_have_kernels).pieces)
    (tmp_path / "unit.obj").write_bytes(thin)
    after = link(tool, tmp_path, linker, "unit.obj")
    assert_holds(after, one_container(kept))
    # Linkers fill sections up to 512 bytes.
    assert abs((len(before) - len(after)) - (len(fat) - len(thin))) < 512
