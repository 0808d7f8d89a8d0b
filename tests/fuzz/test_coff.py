"""Damaged COFF objects end in FormatError or are edited soundly, in little time."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.decoders import may_have_kernels
from fatwheel.fatbin.binary import read_binary
from fatwheel.fatbin.coff import Coff, read_coff, rewrite_object
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.fatbin.stitch import slices_of, stitch_object, without_device_code

from ..helpers.coffobjects import COMPILERS, compile_object
from .mutators import Seed, mutate
from .rounds import refused

DATA = Path(__file__).parent.parent / "data" / "device"
ROUNDS = 600
ENTRIES = parse_containers((DATA / "lz4.fatbin").read_bytes())[0].entries
KEPT = ENTRIES[:1]


def stitch(data: bytes) -> None:
    """Device code that is put into an object is in it then, and nothing else has changed."""
    stitched = stitch_object(without_device_code(data), ENTRIES)
    assert raw(slices_of(stitched)) == raw(ENTRIES)
    assert others(read_coff(stitched)) == others(read_coff(data))


def thin(data: bytes) -> None:
    """The same, and what was edited can be edited again to the same result."""
    many, few = written(data, ENTRIES), written(data, KEPT)
    assert raw(slices_of(few)) == raw(KEPT)
    assert written(many, KEPT) == few
    assert len(few) <= len(data) + 4096, "it has grown"


def raw(entries: tuple[Entry, ...]) -> list[bytes]:
    return [bytes(entry.raw) for entry in entries]


def written(data: bytes, entries: tuple[Entry, ...]) -> bytes:
    containers = read_binary(memoryview(data)).containers
    return b"".join(
        rewrite_object(read_coff(data), [entries for _ in containers], may_have_kernels).pieces
    )


def others(coff: Coff) -> list[tuple[str, bytes, bytes]]:
    """Everything that sections but the fatbin's hold."""
    return [
        (section.name, bytes(coff.content(section)), bytes(coff.relocations(section)))
        for section in coff.sections
        if section.name != ".nv_fatb"
    ]


@pytest.mark.parametrize("use", [stitch, thin])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_damaged_objects(
    tool: Callable[[str], str], tmp_path: Path, compiler: str, use: Callable[[bytes], None]
) -> None:
    seed = Seed(
        compiler, compile_object(tool, tmp_path, compiler, (DATA / "zstd.fatbin").read_bytes())
    )
    use(seed.data)
    cases = (mutate(random.Random(f"{compiler}/{n}"), seed, [seed]) for n in range(ROUNDS))
    count = refused(compiler, cases, use)
    assert ROUNDS // 10 < count < ROUNDS * 9 // 10, f"{count} of {ROUNDS} cases were refused"
