"""What a host program relies on in device code: kernels and their parameter layouts.

A cubin is an ELF file whose kernels are the function symbols with the 'entry' bit. Section
`.nv.info.<kernel>` holds records: u8 format, u8 attribute, u16 value; for format 4 the value is
the size of a payload that follows. The attributes read here (names are cuobjdump's):

  0x17 EIATTR_KPARAM_INFO      u32 index, u16 ordinal, u16 offset, u32 with size = value >> 18
  0x45 EIATTR_KPARAM_INFO_V2   u32 index, u16 ordinal, u16 offset, u16 size, u16 of other things;
                               in its place for kernels with more than 4 KiB of parameters
  0x19 EIATTR_CBANK_PARAM_SIZE the value is the size of all parameters

What a host program relies on is the size of each parameter, by ordinal. Offsets may differ between
architectures: the constant bank that holds the parameters begins elsewhere (0x160 on sm_80, 0x210
on sm_90), and a parameter with an alignment (a CUtensorMap) is aligned to the address, not to the
beginning of the bank. The driver takes the offsets from the image that it loads.

The architecture is in the ELF header's flags: the lowest byte up to ABI version 7 (CUDA 12), the
next one from ABI version 8 (CUDA 13). The suffix 'a' is flag 0x800 in the former, and record 0x09
(EICOMPAT_ATTR_CUDA_ACCELERATOR_TARGET) of section `.nv.compat` in the latter. The suffix 'f' is
not in a cubin at all, only in the fatbin entry around it.

Measured on CUDA 11.8 to 13.2 against `cuobjdump -elf`. Sizes and offsets are bytes.

The version of a cubin's CUDA is, up to ABI version 7 (CUDA 12), the ELF header's e_version, times
ten: 124 is 12.4. From ABI version 8 on it is in the note `.note.nv.tkinfo`, as ptxas and nvlink
print it: `Cuda compilation tools, release 13.0, V13.0.88`. Measured on CUDA 11.8 to 13.2.

PTX names its own version in a directive: `.version 8.7` (PTX ISA, "PTX Module Directives").
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..arch import NUMBERS, Arch
from ..errors import FormatError
from .elf import EM_CUDA, Elf, ElfSymbol, read_elf

_STT_FUNC = 2
_STO_CUDA_ENTRY = 0x10
_INFO = ".nv.info."

_RECORD = struct.Struct("<BBH")
_PARAMETER = struct.Struct("<IHHI")
_FORMAT_WITH_PAYLOAD = 4
_KPARAM_INFO = 0x17
_KPARAM_INFO_V2 = 0x45
_CBANK_PARAM_SIZE = 0x19

_COMPAT = ".nv.compat"
_ACCELERATOR_TARGET = 0x09
_FLAG_ACCELERATOR = 0x800

# Comments and strings are matched first, so that a name within them is not taken for an entry.
# Only a comment of this kind, or a name on a line of its own, goes over the end of a line.
_PTX_OPENS_COMMENT = b"/*"
_PTX_ENTRY_WORD = b".entry"
_PTX_ENTRY = re.compile(
    rb'//[^\n]*|/\*.*?(?:\*/|\Z)|"[^"\n]*"|\.entry\s+(?P<name>[A-Za-z_$%][\w$]*)', re.DOTALL
)


@dataclass(frozen=True, order=True)
class Parameter:
    """One kernel parameter: its number, its size, and its place in the parameter buffer, in bytes.

    The place depends on the architecture, so it is not compared.
    """

    ordinal: int
    size: int
    offset: int = field(compare=False)

    def __str__(self) -> str:
        return f"#{self.ordinal} of {self.size} bytes"


@dataclass(frozen=True)
class ParameterLayout:
    """How a kernel takes its parameters: all of them in order.

    size: of them together, with the gaps between them, in bytes; not compared, as the gaps depend
    on the architecture.
    """

    size: int = field(compare=False)
    parameters: tuple[Parameter, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.parameters)) or "no parameters"


def kernels_of_cubin(cubin: bytes | memoryview) -> dict[str, ParameterLayout]:
    """The kernels of a cubin by (mangled) name, in the order of its symbol table."""
    return _kernels(read_cubin(cubin))


def arch_and_kernels(cubin: bytes | memoryview) -> tuple[Arch, dict[str, ParameterLayout]]:
    """Both, of a cubin that is read once."""
    elf = read_cubin(cubin)
    return _arch(elf), _kernels(elf)


def _kernels(elf: Elf) -> dict[str, ParameterLayout]:
    names = _kernel_names(elf)
    infos = _info_sections(elf, names)
    return {name: _read_layout(infos.get(name, memoryview(b"")), _INFO + name) for name in names}


def kernel_names_of_cubin(cubin: bytes | memoryview) -> tuple[str, ...]:
    """Only the names, for who needs no layouts; each once."""
    return _kernel_names(read_cubin(cubin))


def arch_of_cubin(cubin: bytes | memoryview) -> Arch:
    """What a cubin was made for; 'f' cannot be seen (module docstring)."""
    return _arch(read_cubin(cubin))


def _arch(elf: Elf) -> Arch:
    number = elf.flags & 0xFF if elf.abi < 8 else elf.flags >> 8 & 0xFF
    if number not in NUMBERS:
        raise FormatError(f"the cubin is for architecture {number}, which cannot be")
    if elf.abi < 8:
        return Arch(number, "a" if elf.flags & _FLAG_ACCELERATOR else "")
    specific = any(
        attribute == _ACCELERATOR_TARGET and value
        for section in elf.named(_COMPAT)[:1]
        for attribute, value, _ in _records(elf.content(section), section.name)
    )
    return Arch(number, "a" if specific else "")


def kernel_names_of_ptx(ptx: bytes | memoryview) -> tuple[str, ...]:
    """The names of the entries that a PTX text defines, in order."""
    text = bytes(ptx)
    lines = list(_lines_with(_PTX_ENTRY_WORD, text))
    broken = any(line.rstrip().endswith(_PTX_ENTRY_WORD) for line in lines)
    # A single byte is found twenty times as fast as two, and hardly any text has this one.
    commented = b"*" in text and _PTX_OPENS_COMMENT in text
    parts = [text] if broken or commented else lines
    matches = itertools.chain.from_iterable(map(_PTX_ENTRY.finditer, parts))
    return tuple(match["name"].decode("ascii") for match in matches if match["name"])


def read_cubin(cubin: bytes | memoryview) -> Elf:
    """The ELF file of a cubin; FormatError for any other ELF file."""
    elf = read_elf(cubin)
    if elf.machine != EM_CUDA:
        raise FormatError(f"not a cubin: an ELF file for machine {elf.machine}")
    return elf


def _lines_with(word: bytes, text: bytes) -> Iterator[bytes]:
    """The lines that hold a word; many times faster than an expression over the whole text."""
    position = 0
    while (found := text.find(word, position)) >= 0:
        start = text.rfind(b"\n", position, found) + 1 or position
        end = text.find(b"\n", found)
        position = len(text) if end < 0 else end
        yield text[start:position]


def _kernel_names(elf: Elf) -> tuple[str, ...]:
    return tuple(dict.fromkeys(symbol.name for symbol in elf.symbols() if _is_kernel(symbol)))


def _info_sections(elf: Elf, kernels: tuple[str, ...]) -> dict[str, memoryview]:
    """The content of `.nv.info.<kernel>` by kernel, for those that have one."""
    names = {_INFO + kernel: kernel for kernel in kernels}
    infos = {
        names[section.name]: elf.content(section)
        for section in elf.sections
        if section.name in names
    }
    # Else a small file could make us read the same bytes for each of very many kernels.
    if sum(map(len, infos.values())) > len(elf.data):
        raise FormatError(f"the {_INFO}* sections overlap: together they exceed the file")
    return infos


def _is_kernel(symbol: ElfSymbol) -> bool:
    defined = symbol.section != 0
    return defined and symbol.type == _STT_FUNC and bool(symbol.other & _STO_CUDA_ENTRY)


def _read_layout(info: memoryview, where: str) -> ParameterLayout:
    size = 0
    parameters = []
    for attribute, value, content in _records(info, where):
        if attribute == _CBANK_PARAM_SIZE:
            size = value
        elif attribute in (_KPARAM_INFO, _KPARAM_INFO_V2):
            if len(content) < _PARAMETER.size:
                raise FormatError("a parameter record is cut off", where=where)
            _, ordinal, offset, rest = _PARAMETER.unpack_from(content)
            length = rest >> 18 if attribute == _KPARAM_INFO else rest & 0xFFFF
            parameters.append(Parameter(ordinal, length, offset))
    return ParameterLayout(size, tuple(sorted(parameters)))


def _records(info: memoryview, where: str) -> Iterator[tuple[int, int, memoryview]]:
    """(attribute, value, payload) of each record; the payload may be empty."""
    position = 0
    while position < len(info):
        if position + _RECORD.size > len(info):
            raise FormatError("a record is cut off", where=where)
        format_, attribute, value = _RECORD.unpack_from(info, position)
        position += _RECORD.size
        length = value if format_ == _FORMAT_WITH_PAYLOAD else 0
        if length > len(info) - position:
            raise FormatError("a record is cut off", where=where)
        yield attribute, value, info[position : position + length]
        position += length


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
