"""Damage to just what rewriting a linked ELF file goes by: few bytes of a file, all decisive.

The fuzzer damages files anywhere; here the tables alone are, and what comes out is read again.
"""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.decoders import may_have_kernels
from fatwheel.fatbin.binary import exports_of, imports_of, read_binary, rewrite_binary
from fatwheel.fatbin.container import Entry

from ..helpers.elflibraries import Tool, link_variant
from .rounds import refused

ROUNDS = 400
NUMBERS = (0, 1, 7, 8, 0xFFF, 0x1000, 1 << 20, 1 << 32, 1 << 47, 2**63, 2**64 - 4096, 2**64 - 1)
TABLES = {".dynamic", ".rela.dyn", ".relr.dyn", ".symtab", ".dynsym", ".gnu.hash"}
TABLES |= {".nvFatBinSegment"}


def decisive(data: bytes) -> list[int]:
    """Offsets of 8-byte numbers in headers and tables."""
    elf = ELFFile(io.BytesIO(data))
    ranges = [(24, 64), (elf["e_phoff"], elf["e_phoff"] + 56 * elf["e_phnum"])]
    ranges.append((elf["e_shoff"], elf["e_shoff"] + 64 * elf["e_shnum"]))
    for section in elf.iter_sections():
        if section.name in TABLES:
            ranges.append((section["sh_offset"], section["sh_offset"] + section["sh_size"]))
    return [place for start, end in ranges for place in range(start, end - 7, 8)]


def damaged(data: bytes, places: list[int], source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.randint(1, 3)):
        place = source.choice(places)
        (old,) = struct.unpack_from("<Q", changed, place)
        (other,) = struct.unpack_from("<Q", changed, source.choice(places))
        choices = (old + 1, old - 1, old + 4096, old ^ 1 << source.randrange(64), other)
        new = source.choice((*NUMBERS, *choices, len(data)))
        struct.pack_into("<Q", changed, place, new % 2**64)
    return bytes(changed)


def use(data: bytes) -> None:
    view = memoryview(data)
    imports_of(view)
    exports_of(view)
    containers = read_binary(view).containers
    less = [container.entries[:1] for container in containers]
    once = b"".join(rewrite_binary(view, less, may_have_kernels).pieces)
    kept = [raw(container.entries) for container in read_binary(memoryview(once)).containers]
    assert kept == [raw(entries) for entries in less if entries], "images were lost"
    again = rewrite_binary(memoryview(once), [c[:1] for c in contents(once)], may_have_kernels)
    assert b"".join(again.pieces) == once, "rewriting once more changed the file"


def raw(entries: tuple[Entry, ...]) -> list[bytes]:
    return [bytes(entry.raw) for entry in entries]


def contents(data: bytes) -> list[tuple[Entry, ...]]:
    return [container.entries for container in read_binary(memoryview(data)).containers]


@pytest.mark.parametrize("name", ["rela", "relr", "program-pie", "lld-relr"])
def test_only_refusals_come_out(tmp_path: Path, tool: Tool, name: str) -> None:
    data = link_variant(tool, tmp_path, name)
    places = decisive(data)
    use(data)
    cases = (damaged(data, places, random.Random(f"{name}/{n}")) for n in range(ROUNDS))
    count = refused(name, cases, use)
    assert ROUNDS // 10 < count < ROUNDS, f"{count} of {ROUNDS} refused: too tame, or too wild"
