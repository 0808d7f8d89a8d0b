"""The decoders on libraries: they refuse what the ones of the core refuse, in as little memory."""

from __future__ import annotations

import subprocess
import sys

import lz4.block
import pytest
import zstandard

from fatwheel.decoders import DECODERS
from fatwheel.errors import FormatError

TEXT = b"so much to say " * 1000
STORED = {
    "lz4": lz4.block.compress(TEXT, store_size=False),
    "zstd": zstandard.ZstdCompressor().compress(TEXT),
}
each = pytest.mark.parametrize("name", STORED)


@each
def test_what_was_compressed_comes_back(name: str) -> None:
    assert DECODERS[name](memoryview(STORED[name]), len(TEXT)) == TEXT


@each
@pytest.mark.parametrize("size", [0, len(TEXT) - 1, len(TEXT) + 1, 1 << 40])
def test_the_size_must_be_exact(name: str, size: int) -> None:
    with pytest.raises(FormatError):
        DECODERS[name](memoryview(STORED[name]), size)


@each
def test_damage_is_an_error_of_ours(name: str) -> None:
    for stored in (b"", STORED[name][: len(STORED[name]) // 2], b"\xff" * 50):
        with pytest.raises(FormatError):
            DECODERS[name](memoryview(stored), len(TEXT))


def test_large_frames_are_read_in_steps() -> None:
    large = bytes(range(256)) * (70 << 12)  # 70 MiB
    for options in ({}, {"write_content_size": False}):
        frame = zstandard.ZstdCompressor(**options).compress(large)
        assert DECODERS["zstd"](memoryview(frame), len(large)) == large
        with pytest.raises(FormatError):
            DECODERS["zstd"](memoryview(frame), len(large) + 1)


def test_a_tiny_frame_that_claims_much_takes_little_memory() -> None:
    """In a process that may have 256 MiB: 1 GB is claimed, 15 KB are there."""
    code = (
        "import resource, zstandard\n"
        "from fatwheel.decoders import DECODERS\n"
        "from fatwheel.errors import FormatError\n"
        "frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(15_000))\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({256 << 20}, {256 << 20}))\n"
        "try:\n"
        "    DECODERS['zstd'](memoryview(frame), 1 << 30)\n"
        "except FormatError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "an image holds 15000 bytes, not 1073741824\n", done.stderr
