"""The names that linked files ask others for: libraries of the system's compiler, and PE images."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import lief
import pytest

from fatwheel.errors import FormatError
from fatwheel.fatbin.asked import Asked, asked_of

from ...helpers import peimages
from .test_pe import ONE, samples

SOURCE = """
extern int PyOne_Function(void), _ZN2at3twoEv(void);
extern int three;
extern int perhaps(void) __attribute__((weak));
int own(void) { return PyOne_Function() + _ZN2at3twoEv() + three + (perhaps ? perhaps() : 0); }
"""


@pytest.mark.parametrize(
    "option", ["-Wl,--hash-style=gnu", "-Wl,--hash-style=sysv", "-s", "-fuse-ld=lld", "-nostdlib"]
)
def test_an_elf_library_asks_for_its_undefined_symbols(
    option: str, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    (tmp_path / "a.c").write_text(SOURCE)
    command = [tool("gcc"), "-shared", "-fPIC", option, "a.c", "-o", "a.so"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = {one.name: one for one in asked_of(memoryview((tmp_path / "a.so").read_bytes()))}
    wanted = {name for name in found if not found[name].optional}
    assert {"PyOne_Function", "_ZN2at3twoEv", "three"} <= wanted
    assert found["perhaps"].optional
    assert "own" not in found


def test_an_object_and_other_files_ask_for_nothing() -> None:
    for data in (b"", b"\x7fELF", b"\x7fELF\1\1\1" + bytes(100), b"text"):
        assert asked_of(memoryview(data)) == ()


def test_a_pe_library_asks_each_library_for_names_as_lief_reads_them() -> None:
    for data in samples():
        theirs = lief.PE.parse(list(data))
        assert isinstance(theirs, lief.PE.Binary)
        wanted = [
            Asked(str(entry.name), str(library.name), delayed)
            for libraries, delayed in ((theirs.imports, False), (theirs.delay_imports, True))
            for library in libraries
            for entry in library.entries
            if not entry.is_ordinal
        ]
        assert list(asked_of(memoryview(data))) == wanted


def test_a_pe_library_made_by_hand() -> None:
    found = asked_of(memoryview(peimages.library(ONE).write()))
    assert found == tuple(
        Asked("function", library, library in peimages.DELAYED)
        for library in (*peimages.IMPORTED, *peimages.DELAYED)
    )


def test_a_name_that_does_not_end_is_refused() -> None:
    data = bytearray(peimages.library(ONE).write())
    place = data.index(b"\0\0function\0")
    thunk = data.index(struct.pack("<Q", peimages_address(data, place)))
    struct.pack_into("<Q", data, thunk, 0x7FFFFFFF)
    with pytest.raises(FormatError):
        asked_of(memoryview(bytes(data)))


def test_names_that_share_bytes_are_not_gigabytes() -> None:
    """17,000 words of 8 bytes, each the address of the same name of 4000."""
    start, thunks = 0x1000, struct.pack("<Q", 0x1100) * 17_000
    head = struct.pack("<IIIII", 0x2200, 0, 0, 0x1080, 0x2200).ljust(0x80, b"\0")
    names = (head + b"one.dll").ljust(0x102, b"\0") + b"n" * 4000
    content = names.ljust(0x1200, b"\0") + thunks + bytes(8)
    image = peimages.Image([peimages.Part(".rdata", start, content)], {1: (start, 40)})
    with pytest.raises(FormatError, match="names are longer than"):
        asked_of(memoryview(image.write()))


def peimages_address(data: bytearray, place: int) -> int:
    """The address at which the byte at a place of the file is loaded."""
    image = lief.PE.parse(list(data))
    assert isinstance(image, lief.PE.Binary)
    return int(image.offset_to_virtual_address(place)) - peimages.BASE
