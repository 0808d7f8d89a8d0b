"""A bounded decoder of LZ4 blocks, as CUDA 11 and 12 compress images.

Format: "LZ4 Block Format Description", github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md.
"""

from __future__ import annotations

from ..errors import FormatError

# One byte of a block yields at most 255 bytes: a match length's extension byte.
_MAX_RATIO = 255
_MIN_MATCH = 4


def decompress(block: bytes | memoryview, size: int) -> bytes:
    """Decode one block into exactly `size` bytes; FormatError if it is anything else."""
    data = bytes(block)
    if size > len(data) * _MAX_RATIO:
        raise FormatError(f"an LZ4 block of {len(data)} bytes cannot hold {size}")
    out = bytearray()
    try:
        _decode(data, size, out)
    except IndexError:
        raise FormatError("an LZ4 block is cut off") from None
    if len(out) != size:
        raise FormatError(f"an LZ4 block holds {len(out)} bytes, not {size}")
    return bytes(out)


def _decode(data: bytes, size: int, out: bytearray) -> None:
    """Append the block's bytes to `out`, stopping with FormatError once `size` is passed.

    The last sequence has literals only, so there is another one after every match.
    """
    position, end = 0, len(data)
    while True:
        token = data[position]
        position += 1
        literals = token >> 4
        if literals == 15:
            literals, position = _extend(data, position, literals)
        if literals > end - position:
            raise FormatError("an LZ4 block is cut off in its literals")
        out += data[position : position + literals]
        position += literals
        if position == end:
            return
        distance = data[position] | data[position + 1] << 8
        position += 2
        length = token & 15
        if length == 15:
            length, position = _extend(data, position, length)
        _copy_match(out, distance, length + _MIN_MATCH, size)


def _extend(data: bytes, position: int, length: int) -> tuple[int, int]:
    """Add a length's extension bytes; returns the length and the position after them."""
    while True:
        byte = data[position]
        position += 1
        length += byte
        if byte != 255:
            return length, position


def _copy_match(out: bytearray, distance: int, length: int, size: int) -> None:
    """Repeat `length` bytes from `distance` back; the two may overlap."""
    start = len(out) - distance
    if distance == 0 or start < 0:
        raise FormatError("an LZ4 match points before the start of its block")
    if length > size - len(out):
        raise FormatError(f"an LZ4 block holds more than {size} bytes")
    if distance >= length:
        out += out[start : start + length]
    else:
        repeats = length // distance + 1
        out += (bytes(out[start:]) * repeats)[:length]
