"""Files with device code, whatever their format: what they hold, the same with other code, and what
a system loads them with.

The format is told from the bytes. Raises FormatError for what is malformed or not supported.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..errors import FormatError
from ..storage.mapped import Reading
from . import coff, container, elf, elf_dynamic, elf_linked, pe, pe_linked
from .container import Container, Entry, HasKernels, Rewritten, lay_out, only, parse_containers
from .elf_dynamic import LoadedElf

# As much of a file as `is_binary` needs.
HEAD = 4096

_ARCHIVE = b"!<arch>\n"
# How ELF files begin: class, byte order and version. Others than those for 64 bits have no CUDA.
_ELF_KINDS = {bytes((bits, order, 1)) for bits in (1, 2) for order in (1, 2)}
_ELF_READ = bytes((2, 1, 1))
_STEP = 1 << 20


class _Sections(Protocol):
    """What the readers of all formats offer."""

    def named(self, name: str) -> tuple[Any, ...]: ...

    def content(self, section: Any) -> memoryview: ...


@dataclass(frozen=True)
class Binary:
    """A file as far as device code goes.

    format:      'elf', 'pe', 'coff', 'fatbin' or 'cubin'.
    machine:     of the host code: 'x86_64', 'aarch64' …; 'cuda' where there is only device code.
    linked:      whether it is a library or program, and not an object.
    containers:  those that run, in the file's order; () for a cubin.
    relocatable: where device code was linked (nvcc -rdc=true), the containers it was linked from:
                 drivers link them anew for GPUs that the linked code does not serve.
    """

    format: str
    machine: str
    linked: bool
    containers: tuple[Container, ...]
    relocatable: tuple[Container, ...] = ()


def is_binary(head: bytes) -> bool:
    """Whether a file that begins so may hold device code that a program loads.

    Objects of Windows (COFF) have nothing to be known by and are not looked for.
    """
    return head[:4] in (elf.MAGIC, container.MAGIC_BYTES) or pe.is_pe(head)


def read_binary(data: memoryview) -> Binary:
    """What a file holds; only its tables and the headers of its images are read.

    ELF files without section table, or not for 64 bits, are refused only if a container is in them.
    """
    match _format_of(data):
        case "other elf":
            return _other_elf(data)
        case "elf":
            return _read_elf(elf.read_elf(data))
        case "pe":
            image = pe.read_pe(data)
            return Binary("pe", image.machine, True, *_containers(image, pe.FATBIN_SECTIONS))
        case "coff":
            obj = coff.read_coff(data)
            return Binary("coff", obj.machine, False, *_containers(obj, coff.FATBIN_SECTIONS))
        case _:
            return Binary("fatbin", "cuda", False, parse_containers(data))


def imports_of(data: memoryview) -> tuple[str, ...]:
    """The libraries that a linked file asks the system for, in its order; () for others."""
    match _format_of(data):
        case "elf":
            return elf_dynamic.needed(elf.read_elf(data))
        case "pe":
            return pe.imports(pe.read_pe(data))
        case _:
            return ()


def exports_of(data: memoryview) -> tuple[str, ...]:
    """The names that a linked file offers to others, in its order; () for others."""
    match _format_of(data):
        case "elf":
            return elf_dynamic.exported(elf.read_elf(data))
        case "pe":
            return pe.exports(pe.read_pe(data))
        case _:
            return ()


def rewrite_binary(
    data: memoryview, contents: Sequence[Sequence[Entry]], has_kernels: HasKernels
) -> Rewritten:
    """The file with these images in its containers, then in its relocatable ones, each in their
    order in `Binary`.

    The result depends on the host's part of the file and on `contents` alone: rewriting what
    was rewritten before gives the same bytes as rewriting the original.
    """
    match _format_of(data):
        case "elf":
            file = elf.read_elf(data)
            if file.machine == elf.EM_CUDA:
                raise FormatError("a cubin is one image: there is nothing to choose from")
            if file.type == elf.ET_REL:
                return elf_linked.rewrite_object(file, contents, has_kernels)
            return elf_linked.rewrite_linked(file, contents, has_kernels)
        case "pe":
            return pe_linked.rewrite_linked(pe.read_pe(data), contents, has_kernels)
        case "coff":
            return coff.rewrite_object(coff.read_coff(data), contents, has_kernels)
        case _:
            return _rewrite_fatbin(data, contents)


def _rewrite_fatbin(data: memoryview, contents: Sequence[Sequence[Entry]]) -> Rewritten:
    count = len(parse_containers(data))
    if len(contents) != count:
        raise ValueError(f"contents for {len(contents)} containers, of {count}")
    _, pieces = lay_out(contents)
    return Rewritten(tuple(piece for piece in pieces if len(piece)))


def _format_of(data: memoryview) -> str:
    head = bytes(data[:HEAD])
    if head[:4] == elf.MAGIC:
        kind = head[4:7]
        return "other elf" if kind in _ELF_KINDS and kind != _ELF_READ else "elf"
    if head[:4] == container.MAGIC_BYTES:
        return "fatbin"
    if pe.is_pe(head):
        return "pe"
    if coff.is_coff(head):
        return "coff"
    if head[:8] == _ARCHIVE:
        raise FormatError(
            "static libraries are not supported", hint="extract the objects first: ar x FILE"
        )
    raise FormatError(
        "not a kind of file that is known here",
        hint="valid: a wheel, an object or library of 64-bit Linux or Windows, a fatbin or a cubin",
    )


def _read_elf(file: elf.Elf) -> Binary:
    if file.machine == elf.EM_CUDA:
        return Binary("cubin", "cuda", False, ())
    linked = file.type in (elf.ET_DYN, elf.ET_EXEC)
    if not file.sections:
        _check_no_code(file.data, "it has no section table, so its device code cannot be found")
        return Binary("elf", file.machine_name, linked, ())
    containers = _containers(file, elf.FATBIN_SECTIONS)
    return Binary("elf", file.machine_name, linked, *containers)


def _other_elf(data: memoryview) -> Binary:
    order: Literal["little", "big"] = "big" if data[5] == 2 else "little"
    type_, machine = (int.from_bytes(data[at : at + 2], order) for at in (16, 18))
    why = "only 64-bit little-endian ELF files are supported"
    if machine == elf.EM_CUDA:
        raise FormatError(why)
    _check_no_code(data, why)
    linked = type_ in (elf.ET_DYN, elf.ET_EXEC)
    return Binary("elf", elf.name_of_machine(machine), linked, ())


def _check_no_code(data: memoryview, why: str) -> None:
    """Refuse a file whose sections cannot be read and that has a container somewhere."""
    reading = Reading()
    for start in range(0, len(data), _STEP):
        part = data[start : start + _STEP + len(container.HEADER_START)]
        reading.has_read(part)
        if container.HEADER_START in bytes(part):
            raise FormatError(f"device code that cannot be read is in it: {why}")


def _containers(
    file: _Sections, names: tuple[str, str]
) -> tuple[tuple[Container, ...], tuple[Container, ...]]:
    """The containers that run, and the relocatable ones that they were linked from.

    Where nothing was linked, as in objects, relocatable device code is all there is.
    NVIDIA's cuobjdump chooses in the same way.
    """
    sections = [(name, section) for name in names if (section := only(file.named(name), name))]
    parts = [(section.offset, file.content(section)) for _, section in sections]
    for (one, first), (other, second) in itertools.combinations(parts, 2):
        if one < other + len(second) and other < one + len(first):
            raise FormatError(f"sections {' and '.join(name for name, _ in sections)} overlap")
    found = [parse_containers(content) for _, content in parts]
    return (found[0] if found else ()), (found[1] if len(found) > 1 else ())


# -- loading ---------------------------------------------------------------------------------------

# What a system's loader reads of a linked file: the libraries that it needs, where these are
# looked for, and the versions, functions and variables that they must have.
#
# ELF: DT_NEEDED, DT_SONAME, DT_RPATH and DT_RUNPATH (System V ABI, "Dynamic Section"), the tables
# of versions (Linux Standard Base, "Symbol Versioning"), and undefined symbols of the dynamic
# symbol table; which library has them, the file does not say. PE: the import tables, by library
# ("Import Directory Table" and "Delay-Load Import Tables" of Microsoft's PE format); what is
# delay-loaded is not needed to load. Malformed input ends in FormatError.


_DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 5, 14, 15, 29
_DT_VERDEF, _DT_VERDEFNUM, _DT_VERNEED, _DT_VERNEEDNUM = range(0x6FFFFFFC, 0x70000000)
_DEFINITION = struct.Struct("<HHHHIII")  # version, flags, index, count, hash, names, next
_NAME_OF_DEFINITION = struct.Struct("<II")  # name, next
_NEED = struct.Struct("<HHIII")  # version, count, file, versions, next
_VERSION = struct.Struct("<IHHII")  # hash, flags, other, name, next
_WEAK_VERSION = 2  # VER_FLG_WEAK: the loader does not insist
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
    return _loading_of_elf(file, LoadedElf(file))


def _loading_of_elf(file: elf.Elf, image: LoadedElf) -> Loading:
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


def _needed_versions(image: LoadedElf, names: elf.Names) -> Iterator[tuple[str, str]]:
    """Library and version, of those that the loader insists on."""
    place, left = image.value_of(_DT_VERNEED) or 0, image.value_of(_DT_VERNEEDNUM) or 0
    budget = _MOST
    while place and left:
        _, count, library, inner, following = _NEED.unpack(image.read(place, _NEED.size))
        at = place + inner
        for _ in range(count):
            _, flags, _, name, step = _VERSION.unpack(image.read(at, _VERSION.size))
            if not flags & _WEAK_VERSION:
                yield names.at(library), names.at(name)
            if not step:  # the last one, whatever the count: so loaders read it
                break
            at, budget = at + step, budget - 1
            if budget < 0:
                raise FormatError(f"the ELF file needs more than {_MOST} versions of symbols")
        place, left, budget = (place + following if following else 0), left - 1, budget - 1
        if budget < 0:
            raise FormatError(f"the ELF file needs more than {_MOST} versions of symbols")


def _offered_versions(image: LoadedElf, names: elf.Names) -> Iterator[str]:
    place, left = image.value_of(_DT_VERDEF) or 0, image.value_of(_DT_VERDEFNUM) or 0
    if left > _MOST:
        raise FormatError(f"the ELF file offers {left} versions of symbols")
    while place and left:
        row = _DEFINITION.unpack(image.read(place, _DEFINITION.size))
        first, following = row[5], row[6]
        inner = image.read(place + first, _NAME_OF_DEFINITION.size)
        yield names.at(_NAME_OF_DEFINITION.unpack(inner)[0])
        place, left = (place + following if following else 0), left - 1


_WEAK_SYMBOL = 2  # STB_WEAK
_MAX_SYMBOLS = 1_000_000  # more than any library has
_NAME_BYTES = 4096  # of one imported function: MSVC makes none longer
_MOST_NAMES = 64 << 20  # bytes of all of them, which may share bytes
_IMPORT, _DELAY_IMPORT = struct.Struct("<IIIII"), struct.Struct("<IIIIIIII")
_WORD, _HALF = struct.Struct("<Q"), struct.Struct("<I")


@dataclass(frozen=True)
class AskedSymbol:
    """One name; library is the one that must have it, '' where any may (ELF).

    optional: whether the file loads without it: a weak symbol, or one that is looked for at its
    first use (delay-loaded).
    """

    name: str
    library: str = ""
    optional: bool = False


def asked_of(data: memoryview) -> tuple[AskedSymbol, ...]:
    """All of them, in the file's order; () for what is not linked, and ELF not for 64 bits."""
    if pe.is_pe(bytes(data[:4096])):
        return tuple(_asked_of_pe(pe.read_pe(data)))
    if bytes(data[:7]) != elf.MAGIC + b"\2\1\1":
        return ()
    return tuple(_asked_of_elf(elf.read_elf(data)))


def _asked_of_elf(file: elf.Elf) -> Iterator[AskedSymbol]:
    image = elf_dynamic.LoadedElf(file)
    symbols = image.defined_symbols()
    if not symbols:
        return
    names = image.names()
    for name, info, _, section, _, _ in elf.SYMBOL.iter_unpack(symbols):
        if not section and name:
            yield AskedSymbol(names.at(name), optional=info >> 4 == _WEAK_SYMBOL)


def _asked_of_pe(image: pe.Pe) -> Iterator[AskedSymbol]:
    libraries = iter(pe.imports(image))
    left, bytes_left = _MAX_SYMBOLS, _MOST_NAMES
    for table, delayed in _tables(image):
        library = next(libraries)
        for name in _names(image, table):
            left, bytes_left = left - 1, bytes_left - len(name)
            if left < 0:
                raise FormatError(f"more than {_MAX_SYMBOLS} imported PE functions")
            if bytes_left < 0:
                raise FormatError(f"the imported PE names are longer than {_MOST_NAMES} bytes")
            yield AskedSymbol(name, library, delayed)


def _tables(image: pe.Pe) -> Iterator[tuple[int, bool]]:
    """The address of each library's table of names, in the order of `pe.imports`, and whether it is
    loaded at its first use."""
    for index, row in ((pe.IMPORTS, _IMPORT), (pe.DELAY_IMPORTS, _DELAY_IMPORT)):
        address, _ = image.directory(index)
        rows = row.iter_unpack(_whole(image.rest(address), row.size)) if address else iter(())
        for fields in rows:
            if row is _IMPORT:
                if not fields[3]:
                    break
                yield fields[0] or fields[4], False
            else:
                if not fields[1]:
                    break
                yield (fields[4] if fields[0] & 1 else fields[4] - image.base), True


def _whole(data: memoryview, size: int) -> memoryview:
    return data[: len(data) // size * size]


def _names(image: pe.Pe, table: int) -> Iterator[str]:
    """The names in a table of words: each the address of a hint and a name, or a number alone,
    with the highest bit set."""
    row = _WORD if image.wide else _HALF
    for (word,) in row.iter_unpack(_whole(image.rest(table), row.size)):
        if not word:
            return
        if not word >> (row.size * 8 - 1):
            name, end, _ = bytes(image.rest(word)[2 : 2 + _NAME_BYTES]).partition(b"\0")
            if not end:
                raise FormatError(f"the PE import at address {word:#x} has no end")
            yield name.decode("utf-8", "backslashreplace")
