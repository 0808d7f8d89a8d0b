"""A bounded decoder of one Zstandard frame, as CUDA 12.8 and later compress images.

The standard library has none before Python 3.14, and nvcc 13 compresses PTX this way unless
told otherwise. Format: RFC 8878; the numbers in brackets are its sections. Dictionaries are not
supported and checksums are not verified (images are compared by kernel names, not trusted).
The entropy coders are in `entropy`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import FormatError
from .entropy import (
    BackwardBits,
    FseTable,
    HuffmanTable,
    build_fse_table,
    huffman_decode,
    read_fse_table,
    read_huffman_table,
    single_symbol_table,
)

_MAGIC = 0xFD2FB528
_MAX_BLOCK = 128 << 10
_MAX_WINDOW_LOG = 31  # as the library has it


@dataclass(frozen=True)
class _Code:
    """How one of the three fields of a sequence is coded [3.1.1.3.2.1]."""

    base: tuple[int, ...]
    extra_bits: tuple[int, ...]
    max_log: int
    default: FseTable


def _ranges(first: int, extra_bits: tuple[int, ...]) -> tuple[int, ...]:
    """The smallest value of each code: each covers 2**extra values after the last one's."""
    bases = [first]
    for bits in extra_bits[:-1]:
        bases.append(bases[-1] + (1 << bits))
    return tuple(bases)


# [3.1.1.3.2.1.1] extra bits per code, and [3.1.1.3.2.2] the predefined distributions.
_LITERAL_BITS = (*[0] * 16, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
_MATCH_BITS = (
    *[0] * 32, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
)  # fmt: skip
_LITERAL_DEFAULT = (
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1,
)  # fmt: skip
_MATCH_DEFAULT = (
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
)  # fmt: skip
_OFFSET_DEFAULT = (
    1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
)  # fmt: skip
_OFFSET_BITS = tuple(range(32))

_LITERAL_LENGTH = _Code(
    _ranges(0, _LITERAL_BITS), _LITERAL_BITS, 9, build_fse_table(_LITERAL_DEFAULT, 6)
)
_OFFSET = _Code(
    tuple(1 << bits for bits in _OFFSET_BITS), _OFFSET_BITS, 8, build_fse_table(_OFFSET_DEFAULT, 5)
)
_MATCH_LENGTH = _Code(_ranges(3, _MATCH_BITS), _MATCH_BITS, 9, build_fse_table(_MATCH_DEFAULT, 6))


@dataclass
class _State:
    """What one block leaves for the next: output so far, tables, and the last three offsets.

    block is how many bytes one may hold at most.
    """

    size: int
    block: int = _MAX_BLOCK
    out: bytearray = field(default_factory=bytearray)
    huffman: HuffmanTable | None = None
    tables: dict[int, FseTable] = field(default_factory=dict)
    offsets: tuple[int, int, int] = (1, 4, 8)

    def append(self, data: bytes | bytearray) -> None:
        if len(self.out) + len(data) > self.size:
            raise FormatError(f"a zstd frame holds more than {self.size} bytes")
        self.out += data


def decompress(frame: bytes | memoryview, size: int) -> bytes:
    """Decode one frame into exactly `size` bytes; FormatError if it is anything else."""
    data = bytes(frame)
    state = _State(size)
    try:
        position, window = _read_frame_header(data, size)
        state.block = min(window, _MAX_BLOCK)
        last = False
        while not last:
            last, position = _decode_block(data, position, state)
    except IndexError:
        raise FormatError("a zstd frame is cut off") from None
    if len(state.out) != size:
        raise FormatError(f"a zstd frame holds {len(state.out)} bytes, not {size}")
    return bytes(state.out)


def _read_frame_header(data: bytes, size: int) -> tuple[int, int]:
    """Check the frame header [3.1.1.1]; where the first block starts, and the window's size.

    `size` is what the frame must hold; most headers say it, too.
    """
    if int.from_bytes(data[:4], "little") != _MAGIC:
        raise FormatError("not a zstd frame")
    descriptor = data[4]
    if descriptor & 3 or descriptor & 8:
        raise FormatError("a zstd frame needs a dictionary or has reserved bits set")
    single_segment = descriptor >> 5 & 1
    size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    position = 5 + (1 - single_segment)
    claim = _little(data, position, size_bytes) + (256 if size_bytes == 2 else 0)
    if size_bytes and claim != size:
        raise FormatError(f"a zstd frame claims {claim} bytes, not {size}")
    return position + size_bytes, claim if single_segment else _window_size(data[5])


def _window_size(descriptor: int) -> int:
    """Eighths of a power of two [3.1.1.1.2]; no decoder has to accept more than 8 MiB."""
    if descriptor >> 3 > _MAX_WINDOW_LOG - 10:
        raise FormatError("a zstd frame needs too large a window")
    eighth = 1 << 7 + (descriptor >> 3)
    return (8 + (descriptor & 7)) * eighth


def _decode_block(data: bytes, position: int, state: _State) -> tuple[bool, int]:
    """Decode one block [3.1.1.2]; returns whether it was the last, and where the next starts."""
    header = _little(data, position, 3)
    position += 3
    kind, size = header >> 1 & 3, header >> 3
    if size > _MAX_BLOCK or kind == 3:
        raise FormatError("a zstd block has an impossible size or type")
    if kind == 1:
        state.append(bytes([data[position]]) * size)
        return bool(header & 1), position + 1
    block = _take(data, position, size)
    if kind == 0:
        state.append(block)
    else:
        literals, used = _read_literals(block, state)
        _execute_sequences(block, used, literals, state)
    return bool(header & 1), position + size


def _read_literals(block: bytes, state: _State) -> tuple[bytes, int]:
    """The literals section [3.1.1.3.1]: its bytes, and where the section ends."""
    kind, format_ = block[0] & 3, block[0] >> 2 & 3
    if kind < 2:
        header_size = (1, 2, 1, 3)[format_]
        size = _little(block, 0, header_size) >> (4 if format_ & 1 else 3)
        _check_literals(size)
        if kind == 0:
            return _take(block, header_size, size), header_size + size
        return bytes([block[header_size]]) * size, header_size + 1
    header_size, bits = ((3, 10), (3, 10), (4, 14), (5, 18))[format_]
    header = _little(block, 0, header_size) >> 4
    size, stored = header & (1 << bits) - 1, header >> bits
    _check_literals(size)
    coded = _take(block, header_size, stored)
    start = 0
    if kind == 2:
        state.huffman, start = read_huffman_table(coded)
    if state.huffman is None:
        raise FormatError("a zstd block reuses a Huffman table before there is one")
    literals = _huffman_streams(coded[start:], state.huffman, size, four=format_ != 0)
    return literals, header_size + stored


def _huffman_streams(coded: bytes, table: HuffmanTable, size: int, *, four: bool) -> bytes:
    """Literals from one stream, or from four with a table of the first three's sizes."""
    if not four:
        return huffman_decode(coded, table, size)
    part = (size + 3) // 4
    if size < 3 * part:
        raise FormatError("too few zstd literals for four streams")
    position = 6
    pieces = []
    for index in range(3):
        length = _little(coded, 2 * index, 2)
        pieces.append(huffman_decode(_take(coded, position, length), table, part))
        position += length
    pieces.append(huffman_decode(coded[position:], table, size - 3 * part))
    return b"".join(pieces)


def _execute_sequences(block: bytes, position: int, literals: bytes, state: _State) -> None:
    """Decode the sequences section [3.1.1.3.2] and apply it to the literals."""
    count = block[position]
    position += 1
    if count == 255:
        count = _little(block, position, 2) + 0x7F00
        position += 2
    elif count >= 128:
        count = (count - 128 << 8) + block[position]
        position += 1
    used = 0
    if count:
        modes = block[position]
        if modes & 3:
            raise FormatError("a zstd block has reserved bits set")
        position += 1
        codes = (_LITERAL_LENGTH, _OFFSET, _MATCH_LENGTH)
        for index, code in enumerate(codes):
            mode = modes >> 6 - 2 * index & 3
            state.tables[index], position = _read_table(block, position, mode, index, code, state)
        used = _run_sequences(BackwardBits(block[position:]), count, literals, state)
    state.append(literals[used:])


def _read_table(
    block: bytes, position: int, mode: int, index: int, code: _Code, state: _State
) -> tuple[FseTable, int]:
    """The table of one field, by its mode, and the position after it."""
    if mode == 0:
        return code.default, position
    if mode == 1:
        symbol = block[position]
        if symbol >= len(code.base):
            raise FormatError("a zstd block uses a code that does not exist")
        return single_symbol_table(symbol), position + 1
    if mode == 2:
        table, used = read_fse_table(block[position:], len(code.base), code.max_log)
        return table, position + used
    if index not in state.tables:
        raise FormatError("a zstd block reuses a table before there is one")
    return state.tables[index], position


def _run_sequences(bits: BackwardBits, count: int, literals: bytes, state: _State) -> int:
    """Execute `count` sequences [3.1.1.4]; returns how many literals were used."""
    literal_table, offset_table, match_table = (state.tables[index] for index in range(3))
    literal_state = bits.read(literal_table.log)
    offset_state = bits.read(offset_table.log)
    match_state = bits.read(match_table.log)
    used = 0
    limit = len(state.out) + state.block
    for remaining in range(count, 0, -1):
        offset_code = offset_table.symbols[offset_state]
        match_code = match_table.symbols[match_state]
        literal_code = literal_table.symbols[literal_state]
        offset_value = _OFFSET.base[offset_code] + bits.read(offset_code)
        match = _MATCH_LENGTH.base[match_code] + bits.read(_MATCH_LENGTH.extra_bits[match_code])
        run = _LITERAL_LENGTH.base[literal_code] + bits.read(
            _LITERAL_LENGTH.extra_bits[literal_code]
        )
        if run > len(literals) - used:
            raise FormatError("a zstd sequence uses more literals than there are")
        state.append(literals[used : used + run])
        used += run
        _copy_match(state, _resolve_offset(state, offset_value, run), match)
        if len(state.out) > limit:
            raise FormatError(f"a zstd block holds more than {state.block} bytes")
        if remaining > 1:
            literal_state = literal_table.next(literal_state, bits)
            match_state = match_table.next(match_state, bits)
            offset_state = offset_table.next(offset_state, bits)
    bits.check_all_read()
    return used


def _resolve_offset(state: _State, value: int, run: int) -> int:
    """The distance that an offset value means, updating the last three offsets [3.1.1.5]."""
    first, second, third = state.offsets
    if value > 3:
        offset = value - 3
        state.offsets = (offset, first, second)
        return offset
    repeat = value - 1 + (run == 0)
    if repeat == 0:
        return first
    offset = (second, third, first - 1)[repeat - 1]
    if offset == 0:
        raise FormatError("a zstd sequence has the offset 0")
    state.offsets = (offset, first, third if repeat == 1 else second)
    return offset


def _copy_match(state: _State, distance: int, length: int) -> None:
    """Repeat `length` bytes from `distance` back; the two may overlap."""
    start = len(state.out) - distance
    if start < 0:
        raise FormatError("a zstd match points before the start of its frame")
    if distance >= length:
        state.append(state.out[start : start + length])
    else:
        repeats = length // distance + 1
        state.append((bytes(state.out[start:]) * repeats)[:length])


def _check_literals(size: int) -> None:
    if size > _MAX_BLOCK:
        raise FormatError(f"{size} zstd literals are too many for one block")


def _take(data: bytes, position: int, size: int) -> bytes:
    piece = data[position : position + size]
    if len(piece) != size:
        raise FormatError("a zstd frame is cut off")
    return piece


def _little(data: bytes, position: int, size: int) -> int:
    return int.from_bytes(_take(data, position, size), "little")
