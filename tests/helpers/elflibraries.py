"""Linked ELF files with device code, from the compilers of the system.

The device code is made up: a few bytes that say which image they are. The libraries and programs
show the containers that their wrappers lead to once they are loaded.
"""

from __future__ import annotations

import functools
import io
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile

from fatwheel.fatbin.container import Entry, parse_containers

Tool = Callable[[str], str]
Contents = Sequence[Sequence[Entry]]

HOST = r"""
#include <cstdio>
#include <cstring>
#include <stdexcept>
struct Wrapper { unsigned magic, version; const unsigned char *data; void *other; };
extern "C" const Wrapper wrappers[2];
static char zeros[200000];
static const char *volatile words[] = {"one", "two", "three"};  // relocated, too
static size_t size_of(const unsigned char *container) {
    size_t size;
    memcpy(&size, container + 8, sizeof size);
    return 16 + size;
}
extern "C" int show() {
    try {
        throw std::runtime_error("thrown");
    } catch (const std::exception &error) {
        if (strcmp(error.what(), "thrown")) return 1;
    }
    for (char byte : zeros) if (byte) return 2;
    memset(zeros, 1, sizeof zeros);
    if (strcmp(words[1], "two")) return 3;
    for (const Wrapper &wrapper : wrappers) {
        if (wrapper.magic != 0x466243B1) return 4;
        fwrite(wrapper.data, 1, size_of(wrapper.data), stdout);
    }
    return fflush(stdout);
}
int main() { return show(); }
"""

# As nvcc lays it out. Nothing uses the container `unused`, as linkers leave some.
DEVICE = """
.section .nv_fatbin,"a"
.align 8
{visible}
first: .incbin "first.bin"
.align 8
unused: .long 0xBA55ED50, 0x00100001, 0, 0
second: .incbin "second.bin"
.section .nvFatBinSegment,"aw"
.align 8
.globl wrappers
.hidden wrappers
wrappers:
.long 0x466243B1, 1
.quad first, 0
.long 0x466243B1, 1
.quad second, 0
{more}
.section .note.GNU-stack,"",@progbits
"""

# What nvcc -rdc=true adds: the linked code, whose wrapper leads to a list that is filled while
# the program starts, and the relocatable code that it was linked from. For `more` of `link`.
RELOCATABLE = """
.long 0x466243B1, 2
.quad linked, list
.long 0x466243B1, 1
.quad relocatable_one, 0
.long 0x466243B1, 1
.quad relocatable_two, 0
.section .nv_fatbin,"a"
.align 8
linked: .incbin "linked.bin"
.section __nv_relfatbin,"a"
.align 8
relocatable_one: .incbin "relocatable_one.bin"
.align 8
relocatable_two: .incbin "relocatable_two.bin"
.bss
.align 8
list: .zero 24
"""

LIBRARY = ("-shared",)
# Every way to lay out a file and to relocate its pointers that there is.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "rela": (),
    "relr": ("-Wl,-z,pack-relative-relocs",),
    "stripped": ("-s",),
    "compact": ("-Wl,-z,noseparate-code",),
    "large-pages": ("-Wl,-z,max-page-size=0x200000",),
    "large-compact": ("-Wl,-z,max-page-size=0x200000", "-Wl,-z,noseparate-code"),
    "relro": ("-Wl,-z,relro,-z,now",),
    "gold": ("-fuse-ld=gold",),
    "lld": ("-fuse-ld=lld",),
    "lld-applied": ("-fuse-ld=lld", "-Wl,--apply-dynamic-relocs"),
    "lld-compact": ("-fuse-ld=lld", "-Wl,-z,noseparate-code", "-Wl,--hash-style=sysv"),
}
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "program": ("-no-pie",),
    "program-lld": ("-no-pie", "-fuse-ld=lld"),
    "program-pie": ("-pie",),
    "program-static": ("-static",),
    "program-static-pie": ("-static-pie",),
}
# Loaders of this system may refuse it: lld 14 does not ask for a glibc that knows RELR.
UNLOADED: Mapping[str, tuple[str, ...]] = {
    "lld-relr": ("-fuse-ld=lld", "-Wl,--pack-dyn-relocs=relr"),
}
_LOAD = "import ctypes, sys; sys.exit(max(ctypes.CDLL(path).show() for path in sys.argv[1:]))"


def image(arch: int, fill: str, size: int) -> bytes:
    """A raw entry, encoded here: a cubin, as far as its header says."""
    payload = fill.encode() * size
    payload += bytes(-len(payload) % 8)
    header = (2, 0x101, 64, len(payload), 0, 0, 0, 0, arch, 0, 0, 0x11, 0, 0)
    return struct.pack("<HHIQIIHHIIIQQQ", *header) + payload


def container(*images: bytes) -> bytes:
    """A container, encoded here."""
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, sum(map(len, images))) + b"".join(images)


def entries(*images: bytes) -> tuple[Entry, ...]:
    return parse_containers(container(*images))[0].entries


FIRST = (image(80, "a", 9000), image(90, "b", 12000))
SECOND = (image(80, "c", 700), image(90, "d", 30000))


def link(
    tool: Tool,
    folder: Path,
    options: Iterable[str],
    *,
    host: str = HOST,
    first: bytes = container(*FIRST),
    second: bytes = container(*SECOND),
    visible: str = "",
    more: str = "",
) -> bytes:
    """A library or program with these two containers; visible, more: assembler for DEVICE."""
    (folder / "host.o").write_bytes(_compiled(tool("g++"), host))
    (folder / "device.s").write_text(DEVICE.format(visible=visible, more=more))
    (folder / "first.bin").write_bytes(first)
    (folder / "second.bin").write_bytes(second)
    command = [tool("g++"), *options, "host.o", "device.s", "-o", "linked"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "linked").read_bytes()


@functools.cache
def _compiled(compiler: str, source: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "host.o")
        command = [compiler, "-O1", "-fPIC", "-c", "-x", "c++", "-", "-o", str(output)]
        subprocess.run(command, check=True, input=source, text=True)
        return output.read_bytes()


def link_variant(tool: Tool, folder: Path, name: str) -> bytes:
    """One of LIBRARIES, PROGRAMS or UNLOADED."""
    for linker in ("gold", "lld"):
        if linker in name:
            tool(f"ld.{linker}")
    if name in PROGRAMS:
        return link(tool, folder, PROGRAMS[name])
    return link(tool, folder, [*LIBRARY, *{**LIBRARIES, **UNLOADED}[name]])


def shown_by_library(folder: Path, *libraries: bytes) -> bytes:
    """The containers that the libraries' wrappers lead to once a process has loaded them."""
    paths = [folder / f"loaded{number}.so" for number, _ in enumerate(libraries)]
    for path, data in zip(paths, libraries, strict=True):
        path.write_bytes(data)
    return _output([sys.executable, "-c", _LOAD, *map(str, paths)])


def shown_by_program(folder: Path, data: bytes) -> bytes:
    program = folder / "program"
    program.write_bytes(data)
    program.chmod(0o755)
    return _output([str(program)])


def _output(command: Sequence[str]) -> bytes:
    # With BIND_NOW the loader goes through all relocations.
    environment = {"LD_BIND_NOW": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr.decode()}"
    return done.stdout


def sections(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Address and content of each section by name, as pyelftools reads them."""
    return {
        section.name: (
            section["sh_addr"],
            b"" if section["sh_type"] == "SHT_NOBITS" else section.data(),
        )
        for section in ELFFile(io.BytesIO(data)).iter_sections()
    }
