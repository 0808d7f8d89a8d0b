"""The Zstandard decoder, against the zstandard library (which is the reference code).

These tests stand for the entropy coders too: the samples meet each of their ways.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import zstandard

from fatwheel.errors import FormatError
from fatwheel.fatbin.zstd import decompress

_RANDOM = random.Random(7)
# Of different kinds, so that each way to code literals, sequences and tables is met.
SAMPLES = {
    "empty": b"",
    "one": b"a",
    "run": bytes(700_000),
    "period": b"abcde" * 40_000,
    "noise": _RANDOM.randbytes(150_000),
    "few symbols": bytes(_RANDOM.choices(b"abcdefgh \n", k=200_000)),
    "skewed": bytes(_RANDOM.choices(range(256), [2 ** -(i / 8) for i in range(256)], k=150_000)),
    "text": Path(zstandard.__file__).read_bytes() * 3,
    "machine code": Path(sys.executable).resolve().read_bytes()[:400_000],
    "small": b"The quick brown fox jumps over the lazy dog. " * 3,
}


@pytest.mark.parametrize("level", [-5, 1, 3, 9, 19, 22])
@pytest.mark.parametrize("name", SAMPLES)
def test_decodes_what_the_library_compressed(name: str, level: int) -> None:
    frame = zstandard.ZstdCompressor(level=level).compress(SAMPLES[name])
    assert decompress(frame, len(SAMPLES[name])) == SAMPLES[name]


@pytest.mark.parametrize("options", [{"write_checksum": True}, {"write_content_size": False}])
def test_other_frame_headers(options: dict[str, bool]) -> None:
    sample = SAMPLES["text"]
    frame = zstandard.ZstdCompressor(**options).compress(sample)
    assert decompress(frame, len(sample)) == sample


def test_the_size_must_be_exact() -> None:
    frame = zstandard.ZstdCompressor().compress(SAMPLES["text"])
    for size in (0, 100, len(SAMPLES["text"]) - 1, len(SAMPLES["text"]) + 1):
        with pytest.raises(FormatError):
            decompress(frame, size)


@pytest.mark.parametrize("name", ["text", "few symbols", "small"])
def test_every_truncation_is_refused(name: str) -> None:
    sample = SAMPLES[name][:20_000]
    frame = zstandard.ZstdCompressor().compress(sample)
    for length in range(0, len(frame), max(1, len(frame) // 200)):
        with pytest.raises(FormatError):
            decompress(frame[:length], len(sample))


def test_reserved_bits_are_refused() -> None:
    """Of a block whose sequences are all of one kind: 70000 zeros, found by fuzzing."""
    frame = bytes.fromhex("28b52ffda0701101004d000008000100 6c11391002")
    assert decompress(frame, 70_000) == bytes(70_000)
    modes = frame.index(b"\x01\x00\x6c") + 1
    damaged = frame[:modes] + b"\x01" + frame[modes + 1 :]
    with pytest.raises(zstandard.ZstdError):
        zstandard.ZstdDecompressor().decompress(damaged)
    with pytest.raises(FormatError, match="reserved"):
        decompress(damaged, 70_000)


def test_blocks_larger_than_the_window_are_refused() -> None:
    """The same zeros in a frame with a window of 1 KiB, in which no block may hold more."""
    damaged = bytes.fromhex("28b52ffd000000000055000010000001006b1139c002")
    with pytest.raises(zstandard.ZstdError):
        zstandard.ZstdDecompressor().decompress(damaged, max_output_size=70_000)
    with pytest.raises(FormatError, match="more than 1024 bytes"):
        decompress(damaged, 70_000)


def test_windows_that_the_library_refuses_are_refused() -> None:
    frame = bytearray(zstandard.ZstdCompressor(write_content_size=False).compress(b"some text"))
    assert not frame[4] & 0x20, "the header must have a window"
    for exponent in range(32):
        frame[5] = exponent << 3
        try:
            zstandard.frame_content_size(bytes(frame))
        except zstandard.ZstdError:
            with pytest.raises(FormatError, match="window"):
                decompress(frame, 9)
        else:
            assert decompress(frame, 9) == b"some text"


def test_a_dictionary_is_refused() -> None:
    frame = bytearray(zstandard.ZstdCompressor().compress(SAMPLES["text"]))
    frame[4] |= 1  # the flag for a dictionary identifier of one byte
    with pytest.raises(FormatError, match="dictionary"):
        decompress(frame, len(SAMPLES["text"]))


def test_a_bomb_stops_at_the_claimed_size() -> None:
    """Whether the frame says how much it holds or not."""
    honest = zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))
    with pytest.raises(FormatError, match="claims 67108864 bytes, not 1000"):
        decompress(honest, 1000)
    frame = zstandard.ZstdCompressor(level=19, write_content_size=False).compress(bytes(64 << 20))
    assert len(frame) < 10_000, "the sample must be a bomb"
    with pytest.raises(FormatError, match="more than 1000 bytes"):
        decompress(frame, 1000)
