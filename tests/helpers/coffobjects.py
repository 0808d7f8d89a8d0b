"""COFF objects from the compilers for Windows that there are on Linux."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

COMPILERS: Mapping[str, Sequence[str]] = {
    "mingw": ("x86_64-w64-mingw32-gcc",),
    "mingw-bigobj": ("x86_64-w64-mingw32-gcc", "-Wa,-mbig-obj"),
    "clang": ("clang", "--target=x86_64-pc-windows-msvc"),
}

# Device code as nvcc lays it out: the fatbin, and a wrapper with a pointer to it. Around it
# sections of many kinds: relocated, without bytes, with a long name.
SOURCE = r"""
__asm__(".section .nv_fatb,\"dr\"\n.p2align 3\nfatbin: .incbin \"payload\"\n.text\n");
extern const char fatbin[];
struct wrapper { int magic, version; const char *data; void *other; };
__attribute__((section(".nvFatBi"))) struct wrapper wrapper = {0x466243B1, 1, fatbin, 0};
__declspec(dllexport) const struct wrapper *get_wrapper(void) { return &wrapper; }
__attribute__((section(".a_long_name"))) int longer = 5;
static int zeros[100];
int *count(int i) { zeros[i] += longer; return zeros; }
"""


def compile_object(
    tool: Callable[[str], str],
    folder: Path,
    compiler: str,
    payload: bytes,
    source: str = SOURCE,
    suffix: str = ".c",
) -> bytes:
    """An object with the payload as its fatbin; compiler is one of COMPILERS."""
    program, *options = COMPILERS[compiler]
    (folder / f"unit{suffix}").write_text(source)
    (folder / "payload").write_bytes(payload)
    command = [tool(program), *options, "-c", f"unit{suffix}", "-o", "unit.obj"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "unit.obj").read_bytes()


def without_time(obj: bytes) -> bytes:
    """The object with zeros for the time of its making; big ones hold none."""
    return obj if obj[:4] == b"\0\0\xff\xff" else obj[:4] + bytes(4) + obj[8:]
