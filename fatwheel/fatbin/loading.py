"""What a system's loader reads of a linked file before it loads it: the libraries that it needs,
where these are looked for, and the versions of symbols that they must offer.

ELF: DT_NEEDED, DT_SONAME, DT_RPATH and DT_RUNPATH (System V ABI, "Dynamic Section"), and the tables
of versions (Linux Standard Base, "Symbol Versioning"). PE: the import table alone; what is
delay-loaded is not needed to load. Malformed input ends in FormatError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import FormatError
from . import elf, pe
from .elf_dynamic import Image

_DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 5, 14, 15, 29
_DT_VERDEF, _DT_VERDEFNUM, _DT_VERNEED, _DT_VERNEEDNUM = range(0x6FFFFFFC, 0x70000000)
_DEFINITION = struct.Struct("<HHHHIII")  # version, flags, index, count, hash, names, next
_NAME_OF_DEFINITION = struct.Struct("<II")  # name, next
_NEED = struct.Struct("<HHIII")  # version, count, file, versions, next
_VERSION = struct.Struct("<IHHII")  # hash, flags, other, name, next
_WEAK = 2  # VER_FLG_WEAK: the loader does not insist
_MOST = 65_536  # versions; libc has some 40


@dataclass(frozen=True)
class Loading:
    """What one file asks of the loader.

    format: 'elf' or 'pe'. machine: as `Binary` has it. needed: the libraries, in order. soname: its
    own name, '' for none. rpath, runpath: folders, as they stand there. versions: the versions of
    symbols that it needs, each behind its library; offered: those that it has itself. signed:
    whether it has an Authenticode signature (PE), which is not checked.
    """

    format: str
    machine: str
    needed: tuple[str, ...]
    soname: str = ""
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    offered: frozenset[str] = frozenset()
    signed: bool = False


def is_loadable(head: bytes) -> bool:
    """Whether a file that begins so (4096 bytes are enough) is one that `loading_of` reads."""
    return head[:7] == elf.MAGIC + b"\2\1\1" or pe.is_pe(head)


def loading_of(data: memoryview) -> Loading:
    """Read a library or program of 64-bit Linux, or of Windows."""
    if pe.is_pe(bytes(data[:4096])):
        image = pe.read_pe(data)
        signed = image.directory(pe.CERTIFICATES)[1] > 0
        return Loading("pe", image.machine, pe.imports_at_once(image), signed=signed)
    file = elf.read_elf(data)
    return _of_elf(file, Image(file))


def _of_elf(file: elf.Elf, image: Image) -> Loading:
    if not image.needed and image.value_of(_DT_STRTAB) is None:  # nothing dynamic: no string table
        return Loading("elf", file.machine_name, ())
    names = image.names()

    def text(tag: int) -> str:
        place = image.value_of(tag)
        return "" if place is None else names.at(place)

    def folders(tag: int) -> tuple[str, ...]:
        return tuple(filter(None, text(tag).split(":")))

    return Loading(
        "elf",
        file.machine_name,
        tuple(names.at(name) for name in image.needed),
        text(_DT_SONAME),
        folders(_DT_RPATH),
        folders(_DT_RUNPATH),
        tuple(_needed_versions(image, names)),
        frozenset(_offered_versions(image, names)),
    )


def _needed_versions(image: Image, names: elf.Names) -> Iterator[tuple[str, str]]:
    """Library and version, of those that the loader insists on."""
    place, left = image.value_of(_DT_VERNEED) or 0, image.value_of(_DT_VERNEEDNUM) or 0
    budget = _MOST
    while place and left:
        _, count, library, inner, following = _NEED.unpack(image.read(place, _NEED.size))
        at = place + inner
        for _ in range(count):
            _, flags, _, name, step = _VERSION.unpack(image.read(at, _VERSION.size))
            if not flags & _WEAK:
                yield names.at(library), names.at(name)
            at, budget = at + step, budget - 1
            if budget < 0:
                raise FormatError(f"the ELF file needs more than {_MOST} versions of symbols")
        place, left, budget = (place + following if following else 0), left - 1, budget - 1
        if budget < 0:
            raise FormatError(f"the ELF file needs more than {_MOST} versions of symbols")


def _offered_versions(image: Image, names: elf.Names) -> Iterator[str]:
    place, left = image.value_of(_DT_VERDEF) or 0, image.value_of(_DT_VERDEFNUM) or 0
    if left > _MOST:
        raise FormatError(f"the ELF file offers {left} versions of symbols")
    while place and left:
        row = _DEFINITION.unpack(image.read(place, _DEFINITION.size))
        first, following = row[5], row[6]
        inner = image.read(place + first, _NAME_OF_DEFINITION.size)
        yield names.at(_NAME_OF_DEFINITION.unpack(inner)[0])
        place, left = (place + following if following else 0), left - 1
