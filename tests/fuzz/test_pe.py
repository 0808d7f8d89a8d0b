"""Damaged PE images end in FormatError or are edited soundly, in little time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.decoders import may_have_kernels
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.fatbin.pe import base_relocations, exported_addresses, exports, imports, read_pe
from fatwheel.fatbin.pe_linked import rewrite_linked

from ..helpers import peimages
from .mutators import Seed, mutate
from .rounds import refused

DATA = Path(__file__).parent.parent / "data" / "device"
ROUNDS = 600
ENTRIES = parse_containers((DATA / "lz4.fatbin").read_bytes())[0].entries
LIBRARY = peimages.library(ENTRIES[:2], ENTRIES[2:])
NO_ROOM = peimages.with_debug_offset(replace(LIBRARY, room=0)).write()


def appended(data: bytes) -> bytes:
    """The image with so much device code that it needs another section."""
    contents = (ENTRIES, ENTRIES)
    return b"".join(rewrite_linked(read_pe(data), contents, may_have_kernels).pieces)


SEEDS = {
    "plain": LIBRARY.write(),
    "last": peimages.library(ENTRIES[:2], ENTRIES[2:], last=True).write(),
    "signed": replace(LIBRARY, signature=bytes(64), checksum=1, room=40).write(),
    "no room": NO_ROOM,
    "appended": appended(LIBRARY.write()),
    "appended, no room": appended(NO_ROOM),
}


def read(data: bytes) -> None:
    pe = read_pe(data)
    imports(pe)
    exports(pe)
    exported_addresses(pe)
    list(base_relocations(pe))
    for section in pe.sections:
        pe.content(section)


def rewrite(data: bytes) -> None:
    """What was edited can be edited again, and to the same result as the original."""
    few = written(data, 1)
    assert written(few, 1) == few
    assert len(few) <= len(data) + 4096, "it has grown"


def written(data: bytes, kept: int) -> bytes:
    pe = read_pe(data)
    sections = pe.named(".nv_fatb")
    found = parse_containers(pe.content(sections[0])) if sections else ()
    contents: list[tuple[Entry, ...]] = [container.entries[:kept] for container in found]
    return b"".join(rewrite_linked(pe, contents, may_have_kernels).pieces)


@pytest.mark.parametrize("use", [read, rewrite])
@pytest.mark.parametrize("name", SEEDS)
def test_damaged_images(name: str, use: Callable[[bytes], None]) -> None:
    seed = Seed(name, SEEDS[name])
    use(seed.data)
    cases = (mutate(random.Random(f"{name}/{n}"), seed, [seed]) for n in range(ROUNDS))
    count = refused(name, cases, use)
    assert ROUNDS // 10 < count < ROUNDS * 9 // 10, f"{count} of {ROUNDS} cases were refused"
