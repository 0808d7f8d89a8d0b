"""CUDA wheels to be checked: a sound one for Linux, and the parts to spoil it with.

Its device code was made by NVIDIA's tools: one container with sm_80, compute_80, sm_90a and
sm_120f, which hold the kernels `scale` and `$empty` (data/device/README.md).
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from .standins import DATA
from .tinywheels import Draft

NONE, LZ4, ZSTD = ((DATA / f"{name}.fatbin").read_bytes() for name in ("none", "lz4", "zstd"))
LABEL = "cu130.sm80.ptx.sm90a.sm120f"
MODULE = "demo/_C.cpython-311-x86_64-linux-gnu.so"

_CONTAINER = 16  # bytes of a container's header


def images(fatbin: bytes) -> list[bytes]:
    """The entries of a one-container fatbin, by the sizes in their headers."""
    found, position = [], _CONTAINER
    while position < len(fatbin):
        header, padded = struct.unpack_from("<IQ", fatbin, position + 4)
        found.append(fatbin[position : position + header + padded])
        position += header + padded
    return found


def fatbin(entries: Sequence[bytes]) -> bytes:
    """One container with these entries."""
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, _CONTAINER, len(body)) + body


def without(number: int) -> bytes:
    """The uncompressed fatbin without one of its four images."""
    return fatbin([image for index, image in enumerate(images(NONE)) if index != number])


def changed(number: int, old: bytes, new: bytes) -> bytes:
    """The uncompressed fatbin with other bytes in one of its four images."""
    entries = images(NONE)
    assert old in entries[number], "the sample has no such bytes"
    entries[number] = entries[number].replace(old, new)
    return fatbin(entries)


def _last_parameter(offset: int, size: int) -> bytes:
    """Of `scale`: a record of format 4 with attribute 0x17 and 12 bytes, index 0, ordinal 2."""
    return struct.pack("<BBHIHHI", 4, 0x17, 12, 0, 2, offset, size << 18 | 0x1F000)


# sm_90a takes 4 bytes as the last parameter of `scale`, and not 2.
OTHER_LAYOUT = changed(2, _last_parameter(20, 2), _last_parameter(20, 4))
# sm_90a has it at another place, which depends on the architecture.
OTHER_PLACE = changed(2, _last_parameter(20, 2), _last_parameter(24, 2))
OTHER_KERNEL = changed(2, b"scale", b"shape")
OTHER_PTX = changed(1, b"scale", b"shape")


class Linker:
    """Makes libraries of a few bytes with the system's compiler."""

    def __init__(self, folder: Path, tool: Callable[[str], str]) -> None:
        self._folder = folder
        self._tool = tool
        self._made: dict[tuple[object, ...], bytes] = {}

    def library(
        self, device: bytes = b"", exports: Sequence[str] = (), needs: Sequence[str] = (),
        asks: Sequence[str] = (),
    ) -> bytes:  # fmt: skip
        """An ELF library with this device code that exports these names, needs the libraries of
        those names, and asks them for functions of others."""
        key = (device, *exports, None, *needs, None, *asks)
        if key not in self._made:
            self._made[key] = self._link(device, exports, needs, asks)
        return self._made[key]

    def _link(
        self, device: bytes, exports: Sequence[str], needs: Sequence[str], asks: Sequence[str]
    ) -> bytes:
        (self._folder / "device").write_bytes(device)
        symbols = "".join(f".globl {name}\n{name}:\n" for name in exports)
        symbols += "".join(f"call {name}@PLT\n" for name in asks)
        section = '.section .nv_fatbin,"a"\n.incbin "device"\n' if device else ""
        (self._folder / "a.s").write_text(f"{section}.text\n{symbols} ret\n")
        for name in needs:
            (self._folder / "b.s").write_text("")
            self._gcc("b.s", f"-Wl,-soname,{name}", "-o", name)
        self._gcc("a.s", "-Wl,--no-as-needed", *needs, "-o", "a.so")
        return (self._folder / "a.so").read_bytes()

    def _gcc(self, *arguments: str) -> None:
        command = [self._tool("gcc"), "-shared", "-nostdlib", *arguments]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)


def sound(linker: Linker) -> Draft:
    """A wheel in which nothing is wrong, and nothing needs a warning."""
    return Draft(
        version=f"1.0+{LABEL}",
        requires=("torch",),
        files={
            "demo/__init__.py": b"from . import _C\n",
            MODULE: linker.library(
                NONE, ["PyInit__C"], ["libc10.so", "libcudart.so.13", "libc.so.6"]
            ),
        },
    )
