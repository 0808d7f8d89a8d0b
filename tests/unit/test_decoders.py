"""Decompressing images: what is damaged or claims too much is refused, in little memory."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import lz4.block
import pytest
import zstandard

from fatwheel.decoders import MAX_IMAGE, kernels_of, may_have_kernels, payload
from fatwheel.errors import FormatError
from fatwheel.fatbin.container import Entry

from ..helpers.deviceimages import ONE, compute, entries, raw, sm

_RANDOM = random.Random(7)
TEXT = b"so much to say " * 1000
SAMPLES = {
    "text": TEXT,
    "one": b"a",
    "run": bytes(700_000),
    "noise": _RANDOM.randbytes(150_000),
    "few symbols": bytes(_RANDOM.choices(b"abcdefgh \n", k=200_000)),
}
each = pytest.mark.parametrize("compression", ["lz4", "zstd"])


def stored_as(compression: str, image: bytes) -> bytes:
    if compression == "lz4":
        compressed: bytes = lz4.block.compress(image, store_size=False)
        return compressed
    return zstandard.ZstdCompressor().compress(image)


def image(compression: str, stored: bytes, size: int) -> Entry:
    """An image that is stored like this and claims this size."""
    [entry] = entries(raw("elf", 80, b"x", compression=compression))
    return replace(
        entry, header_size=0, stored=len(stored), uncompressed=size, raw=memoryview(stored)
    )


@each
@pytest.mark.parametrize("name", SAMPLES)
def test_what_was_compressed_comes_back(compression: str, name: str) -> None:
    data = SAMPLES[name]
    assert payload(image(compression, stored_as(compression, data), len(data))) == data


@pytest.mark.parametrize("options", [{"write_checksum": True}, {"write_content_size": False}])
def test_other_headers_of_zstd(options: dict[str, bool]) -> None:
    frame = zstandard.ZstdCompressor(**options).compress(TEXT)
    assert payload(image("zstd", frame, len(TEXT))) == TEXT


def test_what_is_not_compressed_is_not_copied() -> None:
    [entry] = entries(raw("elf", 80, b"12345678"))
    assert isinstance(payload(entry), memoryview)
    assert payload(entry) == b"12345678"


def test_an_unknown_compression_is_refused() -> None:
    unknown = replace(image("lz4", b"\xff" * 8, 100), compression="unknown", flags=0x11)
    with pytest.raises(FormatError, match="sm_80 is compressed in an unknown way") as caught:
        payload(unknown)
    assert caught.value.where == "fatbin entry with flags 0x11"


@each
@pytest.mark.parametrize("size", [0, 1, len(TEXT) - 1, len(TEXT) + 1, MAX_IMAGE, 1 << 40])
def test_the_size_must_be_exact(compression: str, size: int) -> None:
    with pytest.raises(FormatError):
        payload(image(compression, stored_as(compression, TEXT), size))


@each
def test_an_image_cannot_claim_more_than_the_limit(compression: str) -> None:
    with pytest.raises(FormatError, match="sm_80 claims 1073741825 bytes"):
        payload(image(compression, stored_as(compression, TEXT), MAX_IMAGE + 1))


@each
@pytest.mark.parametrize("name", ["text", "few symbols"])
def test_every_truncation_is_refused(compression: str, name: str) -> None:
    data = SAMPLES[name][:20_000]
    stored = stored_as(compression, data)
    for length in range(0, len(stored), max(1, len(stored) // 200)):
        with pytest.raises(FormatError):
            payload(image(compression, stored[:length], len(data)))


@pytest.mark.parametrize(
    ("compression", "message"),
    [("lz4", "an LZ4 block is damaged"), ("zstd", "a zstd frame is damaged")],
)
def test_what_is_nothing_of_the_sort_is_refused_by_name(compression: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        payload(image(compression, b"\xff" * 50, 100))


# Tokens: high nibble literals, low nibble match length - 4; then literals, then the distance.
@pytest.mark.parametrize(
    "block",
    [b"\x20a", b"\x10a\x01", b"\xf0", b"\x10a\x01\x00", b"\x10a\x02\x00"],
    ids=["no literals", "no distance", "no length", "ends with a match", "before the start"],
)
def test_malformed_blocks_of_lz4_are_refused(block: bytes) -> None:
    with pytest.raises(FormatError):
        payload(image("lz4", block, 5))


def test_reserved_bits_of_zstd_are_refused() -> None:
    """Of a block whose sequences are all of one kind: 70000 zeros, found by fuzzing."""
    frame = bytes.fromhex("28b52ffda0701101004d000008000100 6c11391002")
    assert payload(image("zstd", frame, 70_000)) == bytes(70_000)
    damaged = frame.replace(b"\x01\x00\x6c", b"\x01\x01\x6c")
    with pytest.raises(FormatError):
        payload(image("zstd", damaged, 70_000))


def test_blocks_larger_than_the_window_are_refused() -> None:
    """Zeros in a frame with a window of 1 KiB, in which no block may hold more."""
    damaged = bytes.fromhex("28b52ffd000000000055000010000001006b1139c002")
    with pytest.raises(FormatError):
        payload(image("zstd", damaged, 70_000))


def test_a_dictionary_is_refused() -> None:
    frame = bytearray(zstandard.ZstdCompressor().compress(TEXT))
    frame[4] |= 1  # the flag for a dictionary identifier of one byte
    with pytest.raises(FormatError):
        payload(image("zstd", bytes(frame), len(TEXT)))


def test_large_frames_are_read_in_steps() -> None:
    large = bytes(range(256)) * (70 << 12)  # 70 MiB
    for options in ({}, {"write_content_size": False}):
        frame = zstandard.ZstdCompressor(**options).compress(large)
        assert payload(image("zstd", frame, len(large))) == large
        with pytest.raises(FormatError):
            payload(image("zstd", frame, len(large) + 1))


CLAIMS = {
    "a frame that does not say its size": (
        "zstd", "zstandard.ZstdCompressor(write_content_size=False).compress(bytes(15_000))",
        1 << 30, "an image holds 15000 bytes, not 1073741824",
    ),
    "a frame that holds more": (
        "zstd", "zstandard.ZstdCompressor(19, write_content_size=False).compress(bytes(64 << 20))",
        1000, "a zstd frame is damaged: ",
    ),
    "a block": (
        "lz4", "bytes(1000)", 1 << 30, "an LZ4 block of 1000 bytes cannot hold 1073741824",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("compression", "stored", "size", "message"), CLAIMS.values(), ids=CLAIMS)
def test_bombs_take_little_memory(compression: str, stored: str, size: int, message: str) -> None:
    """In a process that may have 256 MiB."""
    code = (
        "import resource, zstandard\n"
        "from fatwheel.decoders import payload\n"
        "from fatwheel.errors import FormatError\n"
        "from tests.unit.test_decoders import image\n"
        f"entry = image({compression!r}, {stored}, {size})\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({256 << 20}, {256 << 20}))\n"
        "try:\n"
        "    payload(entry)\n"
        "except FormatError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith(message), done.stdout + done.stderr


# -- kernels -------------------------------------------------------------------------------------


def test_kernels_of_a_container() -> None:
    both = entries(compute(80, ["other"]), sm(90, ONE))
    assert kernels_of(both) == {"one", "other"}
    assert kernels_of(entries(raw("lto", 80, b"ir"))) == frozenset()


@each
def test_images_without_kernels(compression: str) -> None:
    for entry in entries(
        sm(80, {}), compute(80, []), sm(80, {}, compression=compression),
        compute(80, [], compression=compression),
    ):  # fmt: skip
        assert not may_have_kernels(entry)


@pytest.mark.parametrize(
    "image",
    [sm(80, ONE), sm(80, compression="zstd"), compute(80, ["one"]), raw("lto", 80, b"who knows"),
     raw("elf", 80, b"damaged!")],
    ids=["cubin", "compressed", "PTX", "another kind", "a damaged cubin"],
)  # fmt: skip
def test_images_that_may_have_kernels(image: bytes) -> None:
    [entry] = entries(image)
    assert may_have_kernels(entry)


def test_what_cannot_be_decompressed_may_have_kernels() -> None:
    assert may_have_kernels(image("zstd", b"\xff" * 50, 100))
