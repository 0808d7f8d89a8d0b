"""The LZ4 block decoder, against the lz4 library."""

from __future__ import annotations

import random

import lz4.block
import pytest

from fatwheel.errors import FormatError
from fatwheel.fatbin.lz4 import decompress

SAMPLES = [
    b"",
    b"a",
    b"abcd" * 5,
    bytes(100_000),
    b"abc" * 30_000,
    bytes(random.Random(1).choices(b"ab \n", k=70_000)),
    random.Random(2).randbytes(1000),
]


@pytest.mark.parametrize("mode", ["default", "high_compression"])
@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_decodes_what_the_library_compressed(sample: bytes, mode: str) -> None:
    block = lz4.block.compress(sample, mode=mode, store_size=False)
    assert decompress(block, len(sample)) == sample


def test_the_size_must_be_exact() -> None:
    block = lz4.block.compress(b"abc" * 100, store_size=False)
    for size in (0, 1, 299, 301, 1000):
        with pytest.raises(FormatError):
            decompress(block, size)


# Tokens: high nibble literals, low nibble match length - 4; then literals, then the distance.
@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"\x20a", "cut off in its literals"),
        (b"\x10a\x01", "cut off"),
        (b"\xf0", "cut off"),
        (b"\x10a\x01\x00", "cut off"),  # ends with a match, which only literals may follow
        (b"\x10a\x02\x00", "before the start"),
        (b"\x10a\x00\x00", "before the start"),
    ],
)
def test_malformed_blocks_are_refused(block: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decompress(block, 5)


def test_an_empty_block_holds_not_even_nothing() -> None:
    """Nothing is a token of zero, as the library has it, too."""
    with pytest.raises(FormatError, match="cut off"):
        decompress(b"", 0)
    assert decompress(b"\0", 0) == b""


def test_a_bomb_is_refused_before_it_grows() -> None:
    with pytest.raises(FormatError, match="cannot hold"):
        decompress(bytes(100), 1 << 40)
