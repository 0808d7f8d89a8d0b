"""Damaged input ends in FormatError, whatever the damage, in little time and memory."""

from __future__ import annotations

import random
import resource
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import lz4.block
import pytest
import zstandard

from fatwheel.errors import FormatError, StitchError
from fatwheel.fatbin import cubin, elf, parity, stitch
from fatwheel.fatbin import lz4 as own_lz4
from fatwheel.fatbin import zstd as own_zstd
from fatwheel.fatbin.container import parse_containers, payload
from fatwheel.verify.inspect import inspect_file

DATA = Path(__file__).parent.parent / "data" / "device"
ROUNDS = 1500
# Numbers that parsers get wrong, in 1, 2, 4 and 8 bytes.
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]


def damage(data: bytes, source: random.Random) -> bytes:
    """Between one and four changes: numbers, bits, cuts, insertions, copied pieces."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        if not changed:
            break
        at = source.randrange(len(changed))
        kind = source.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            size = source.choice([1, 2, 4, 8])
            number = source.choice([*NUMBERS, len(data), source.randrange(1 << 32)])
            place = at - at % size
            changed[place : place + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            del changed[at : at + source.randint(1, 64)]
        elif kind == 4:
            changed[at:at] = source.randbytes(source.randint(1, 64))
        else:
            start = source.randrange(len(changed))
            length = source.randint(1, 64)
            changed[at : at + length] = changed[start : start + length]
    return bytes(changed)


def attack(sample: bytes, use: Callable[[bytes], object], seed: int, rounds: int = ROUNDS) -> None:
    """Give `use` damaged versions of a sample that it accepts as it is."""
    use(sample)
    memory = peak_memory()
    refused = 0
    for number in range(rounds):
        case = damage(sample, random.Random(f"{seed}/{number}"))
        start = time.monotonic()
        try:
            use(case)
        except (FormatError, StitchError):
            refused += 1
        except BaseException as error:
            raise AssertionError(f"case {seed}/{number}: {error!r} came out") from error
        seconds = time.monotonic() - start
        assert seconds < 5, f"case {seed}/{number} took {seconds:.1f} seconds"
    assert refused > rounds // 10, f"only {refused} of {rounds} cases were refused: too tame"
    grown = peak_memory() - memory
    assert grown < 256 << 20, f"the peak memory grew by {grown >> 20} MiB"


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_fatbin(data: bytes) -> None:
    entries = stitch.slices_of(data)
    parity.check_parity("unit", entries)
    for container in parse_containers(data):
        for entry in container.entries:
            payload(entry)


@pytest.mark.parametrize("name", ["none", "lz4", "zstd"])
def test_fatbins(name: str) -> None:
    attack((DATA / f"{name}.fatbin").read_bytes(), read_fatbin, seed=1)


@pytest.mark.parametrize("name", ["cuda11.8-sm_80", "cuda13.0-sm_120f", "large"])
def test_cubins(name: str) -> None:
    def read(data: bytes) -> None:
        cubin.arch_of_cubin(data)
        cubin.kernels_of_cubin(data)

    attack((DATA / f"{name}.cubin").read_bytes(), read, seed=2)


def test_headers_of_cubins() -> None:
    """Only the ELF header is damaged, and the file reread in full."""
    sample = (DATA / "large.cubin").read_bytes()
    rest = sample[64:]
    attack(sample[:64], lambda head: cubin.kernels_of_cubin(head + rest), seed=3)


def test_ptx() -> None:
    """Any text is accepted: there is nothing to refuse, but nothing may come out either."""
    sample = (DATA / "scale.ptx").read_bytes()
    for number in range(ROUNDS):
        cubin.kernel_names_of_ptx(damage(sample, random.Random(f"4/{number}")))


def test_objects(tmp_path: Path, tool: Callable[[str], str]) -> None:
    text = f'.text\nnop\n.section .nv_fatbin,"a"\n.align 8\n.incbin "{DATA / "zstd.fatbin"}"\n'
    (tmp_path / "a.s").write_text(text)
    subprocess.run([tool("as"), "a.s", "-o", "a.o"], cwd=tmp_path, check=True)
    entries = stitch.slices_of((DATA / "lz4.fatbin").read_bytes())

    def edit(data: bytes) -> None:
        stitched = stitch.stitch_object(stitch.without_device_code(data), entries)
        assert len(stitch.slices_of(stitched)) == len(entries)
        for section in elf.read_elf(stitched).sections:
            elf.read_elf(stitched).content(section)

    attack((tmp_path / "a.o").read_bytes(), edit, seed=5)


def test_compressed_blocks() -> None:
    text = (DATA / "scale.ptx").read_bytes() * 5
    block = lz4.block.compress(text, store_size=False)
    attack(block, lambda data: own_lz4.decompress(data, len(text)), seed=6)
    for level in (1, 19):
        frame = zstandard.ZstdCompressor(level=level).compress(text)
        attack(frame, lambda data: own_zstd.decompress(data, len(text)), seed=7)


@pytest.mark.parametrize("name", ["lz4.fatbin", "zstd.fatbin", "large.cubin"])
def test_inspect(tmp_path: Path, name: str) -> None:
    def read(data: bytes) -> None:
        (tmp_path / "file").write_bytes(data)
        inspect_file(tmp_path / "file")

    attack((DATA / name).read_bytes(), read, seed=8, rounds=500)


def test_wheels(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as out:
        out.write(DATA / "zstd.fatbin", "thing/code.fatbin")
        out.writestr("thing/__init__.py", "x = 1\n")
        out.writestr("thing-1.dist-info/METADATA", "Name: thing\nVersion: 1\n")
        out.writestr("thing-1.dist-info/WHEEL", "Tag: py3-none-any\n")
        out.writestr("thing-1.dist-info/RECORD", "")
    sample = (tmp_path / "a.whl").read_bytes()
    directory = struct.unpack("<I", sample[-6:-2])[0]

    def read(data: bytes) -> None:
        (tmp_path / "a.whl").write_bytes(data)
        inspect_file(tmp_path / "a.whl")

    attack(sample, read, seed=9, rounds=500)
    # Most bytes are compressed data: damage the directory, which decides what is read, alone.
    attack(sample[directory:], lambda tail: read(sample[:directory] + tail), seed=10, rounds=1000)
