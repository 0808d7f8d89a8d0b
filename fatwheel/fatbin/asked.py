"""The functions and variables that a linked file asks other libraries for, by name.

ELF: undefined symbols of the dynamic symbol table; which library has them, the file does not say.
PE: the import tables, by library ("Import Directory Table" and "Delay-Load Import Tables" of
Microsoft's PE format). Malformed input ends in FormatError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import FormatError
from . import elf, elf_dynamic, pe

_WEAK = 2  # STB_WEAK
_MAX_SYMBOLS = 1_000_000  # more than any library has
_NAME_BYTES = 4096  # of one imported function: MSVC makes none longer
_MOST_NAMES = 64 << 20  # bytes of all of them, which may share bytes
_IMPORT, _DELAY_IMPORT = struct.Struct("<IIIII"), struct.Struct("<IIIIIIII")
_WORD, _HALF = struct.Struct("<Q"), struct.Struct("<I")


@dataclass(frozen=True)
class Asked:
    """One name; library is the one that must have it, '' where any may (ELF).

    optional: whether the file loads without it: a weak symbol, or one that is looked for at its
    first use (delay-loaded).
    """

    name: str
    library: str = ""
    optional: bool = False


def asked_of(data: memoryview) -> tuple[Asked, ...]:
    """All of them, in the file's order; () for what is not linked, and ELF not for 64 bits."""
    if pe.is_pe(bytes(data[:4096])):
        return tuple(_of_pe(pe.read_pe(data)))
    if bytes(data[:7]) != elf.MAGIC + b"\2\1\1":
        return ()
    return tuple(_of_elf(elf.read_elf(data)))


def _of_elf(file: elf.Elf) -> Iterator[Asked]:
    image = elf_dynamic.Image(file)
    symbols = image.defined_symbols()
    if not symbols:
        return
    names = image.names()
    for name, info, _, section, _, _ in elf.SYMBOL.iter_unpack(symbols):
        if not section and name:
            yield Asked(names.at(name), optional=info >> 4 == _WEAK)


def _of_pe(image: pe.Pe) -> Iterator[Asked]:
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
            yield Asked(name, library, delayed)


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
