"""Which CUDA made a cubin, and which version of PTX a text is in.

The version of a cubin's CUDA is, up to ABI version 7 (CUDA 12), the ELF header's e_version, times
ten: 124 is 12.4. From ABI version 8 on it is in the note `.note.nv.tkinfo`, as ptxas and nvlink
print it: `Cuda compilation tools, release 13.0, V13.0.88`. Measured on CUDA 11.8 to 13.2.

PTX names its own version in a directive: `.version 8.7` (PTX ISA, "PTX Module Directives").
"""

from __future__ import annotations

import re
import struct

from .cubin import read_cubin

Version = tuple[int, int]  # major, minor

_E_VERSION = struct.Struct("<I")
_E_VERSION_AT = 20  # bytes from the beginning of an ELF header
_VERSIONS = range(50, 200)  # CUDA 5.0 to 19.9
_NOTE = ".note.nv.tkinfo"
_RELEASE = re.compile(rb"Cuda compilation tools, release ([0-9]{1,3})\.([0-9]{1,3}),")
_PTX_VERSION = re.compile(rb"^[ \t]*\.version[ \t]+([0-9]{1,3})\.([0-9]{1,3})", re.MULTILINE)
_PTX_HEAD = 64 << 10  # bytes: only comments come before the directive


def cuda_of_cubin(cubin: bytes | memoryview) -> Version | None:
    """The CUDA whose ptxas or nvlink wrote a cubin, such as (12, 8); None where it does not say.

    FormatError where it is no cubin.
    """
    elf = read_cubin(cubin)
    if elf.abi < 8:
        [version] = _E_VERSION.unpack_from(elf.data, _E_VERSION_AT)
        return divmod(version, 10) if version in _VERSIONS else None
    for section in elf.named(_NOTE)[:1]:
        if match := _RELEASE.search(elf.content(section)):
            return int(match[1]), int(match[2])
    return None


def version_of_ptx(ptx: bytes | memoryview) -> Version | None:
    """The version of PTX that a text is in, such as (8, 7); None where it does not say."""
    match = _PTX_VERSION.search(bytes(ptx[:_PTX_HEAD]))
    return (int(match[1]), int(match[2])) if match else None
