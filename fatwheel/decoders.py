"""Decoders of compressed images on the lz4 and zstandard libraries: `fatbin` needs neither, and is
ten to a hundred times slower.
"""

from __future__ import annotations

from collections.abc import Mapping

import lz4.block
import zstandard

from .errors import FormatError
from .fatbin.container import Decoder

# The library makes room for all that a frame claims before it reads it; a tiny one may claim a
# lot. Beyond this many bytes room is made in steps.
_TRUSTED = 64 << 20
_STEP = 1 << 20


def _decode_lz4(stored: memoryview, size: int) -> bytes:
    # One byte of a block yields at most 255: a larger claim would only cost memory.
    if size > len(stored) * 255:
        raise FormatError(f"an LZ4 block of {len(stored)} bytes cannot hold {size}")
    try:
        data: bytes = lz4.block.decompress(stored, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise FormatError(f"an LZ4 block is damaged: {error}") from error
    return _of_size(data, size)


def _decode_zstd(stored: memoryview, size: int) -> bytes:
    try:
        if zstandard.frame_content_size(stored) not in (size, -1):
            raise FormatError(f"a zstd frame does not hold {size} bytes")
        if size <= _TRUSTED:
            data = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
        else:
            data = _decode_in_steps(stored, size)
    except zstandard.ZstdError as error:
        raise FormatError(f"a zstd frame is damaged: {error}") from error
    return _of_size(data, size)


def _decode_in_steps(stored: memoryview, size: int) -> bytes:
    """With no more memory than is really filled; stops once there is more than `size`."""
    data = bytearray()
    reader = zstandard.ZstdDecompressor().stream_reader(stored)
    while len(data) <= size and (step := reader.read(_STEP)):
        data += step
    return bytes(data)


def _of_size(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise FormatError(f"an image holds {len(data)} bytes, not {size}")
    return data


DECODERS: Mapping[str, Decoder] = {"lz4": _decode_lz4, "zstd": _decode_zstd}
