"""Zstandard's entropy coders: FSE and Huffman (RFC 8878, sections 4.1 and 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import FormatError

_MAX_HUFFMAN_BITS = 11
_MAX_WEIGHT_LOG = 6
# Bits decoded from one integer before the next is cut out of the stream: long enough that the
# cutting costs little, short enough that shifting it is cheap.
_WINDOW_BITS = 224
# Zero bytes before a stream, so that looking a few bits beyond its start needs no test.
_GUARD_BYTES = 8


class BackwardBits:
    """A bit stream that is read from its end; the highest set bit of its last byte ends it."""

    def __init__(self, data: bytes) -> None:
        if not data or data[-1] == 0:
            raise FormatError("a zstd bit stream has no end mark")
        self._data = data
        self.left = 8 * len(data) - 9 + data[-1].bit_length()

    def read(self, count: int) -> int:
        """The next `count` bits; FormatError if there are fewer."""
        self.left -= count
        if self.left < 0:
            raise FormatError("a zstd bit stream is cut off")
        start = self.left
        piece = self._data[start >> 3 : (start + count + 7) >> 3]
        return (int.from_bytes(piece, "little") >> (start & 7)) & ((1 << count) - 1)

    def check_all_read(self) -> None:
        if self.left:
            raise FormatError(f"{self.left} bits too many in a zstd bit stream")


@dataclass(frozen=True)
class FseTable:
    """A finite state: per state its symbol, how many bits to read, and what to add to them."""

    log: int
    symbols: Sequence[int]
    bits: Sequence[int]
    base: Sequence[int]

    def next(self, state: int, stream: BackwardBits) -> int:
        return self.base[state] + stream.read(self.bits[state])


@dataclass(frozen=True)
class HuffmanTable:
    """A prefix code: symbol and length of the code that starts with each `log` bits."""

    log: int
    symbols: bytes
    lengths: bytes


def single_symbol_table(symbol: int) -> FseTable:
    """The table whose every state is `symbol` and reads no bits."""
    return FseTable(0, (symbol,), (0,), (0,))


def build_fse_table(probabilities: Sequence[int], log: int) -> FseTable:
    """The decoding table of a distribution that sums to 2**log; -1 means 'less than 1'."""
    size = 1 << log
    symbols = [0] * size
    counts = [abs(probability) for probability in probabilities]
    high = size - 1
    for symbol, probability in enumerate(probabilities):
        if probability == -1:
            symbols[high] = symbol
            high -= 1
    step = (size >> 1) + (size >> 3) + 3
    position = 0
    for symbol, probability in enumerate(probabilities):
        for _ in range(probability):
            symbols[position] = symbol
            position = (position + step) & (size - 1)
            while position > high:
                position = (position + step) & (size - 1)
    bits, base = [], []
    for symbol in symbols:
        count = counts[symbol]
        counts[symbol] += 1
        bits.append(log + 1 - count.bit_length())
        base.append((count << bits[-1]) - size)
    return FseTable(log, symbols, bits, base)


def read_fse_table(data: bytes, max_symbols: int, max_log: int) -> tuple[FseTable, int]:
    """A table description [4.1.1] at the start of `data`, and how many bytes it takes."""
    # No description is longer than this; a stream cut off reads as zeros and ends in an error.
    stream = int.from_bytes(data[:512], "little")
    log = (stream & 15) + 5
    if log > max_log:
        raise FormatError(f"a zstd table of 2**{log} states is too large")
    position = 4
    remaining = 1 << log
    probabilities: list[int] = []
    while remaining > 0:
        value, position = _read_probability(stream, position, remaining)
        probabilities.append(value - 1)
        remaining -= abs(value - 1)
        repeat = 3 if value == 1 else 0
        while repeat == 3:
            repeat = stream >> position & 3
            position += 2
            probabilities += [0] * repeat
            if len(probabilities) > max_symbols:
                break
        if len(probabilities) > max_symbols:
            raise FormatError("a zstd table has too many symbols")
    used = (position + 7) // 8
    if remaining < 0 or used > len(data):
        raise FormatError("a zstd table is cut off or does not add up")
    return build_fse_table(probabilities, log), used


def _read_probability(stream: int, position: int, remaining: int) -> tuple[int, int]:
    """One value of 0..remaining+1, the small ones in one bit less, and the position after it."""
    bits = (remaining + 1).bit_length()
    short = (1 << bits - 1) - 1
    spare = (1 << bits) - 1 - (remaining + 1)
    value = stream >> position & (1 << bits) - 1
    if value & short < spare:
        return value & short, position + bits - 1
    return value - spare if value > short else value, position + bits


def read_huffman_table(data: bytes) -> tuple[HuffmanTable, int]:
    """A table description [4.2.1] at the start of `data`, and how many bytes it takes."""
    header = data[0]
    if header < 128:
        used = 1 + header
        if used > len(data):
            raise FormatError("a zstd Huffman table is cut off")
        weights = _read_fse_weights(data[1:used])
    else:
        count = header - 127
        used = 1 + (count + 1) // 2
        packed = data[1:used]
        if used > len(data):
            raise FormatError("a zstd Huffman table is cut off")
        weights = [nibble for byte in packed for nibble in (byte >> 4, byte & 15)][:count]
    return _build_huffman_table(weights), used


def _read_fse_weights(data: bytes) -> list[int]:
    """Weights coded with two states in turn, until the stream is used up [4.2.1.2]."""
    table, used = read_fse_table(data, 256, _MAX_WEIGHT_LOG)
    stream = BackwardBits(data[used:])
    states = [stream.read(table.log), stream.read(table.log)]
    weights: list[int] = []
    turn = 0
    while len(weights) < 255:
        state = states[turn]
        weights.append(table.symbols[state])
        if table.bits[state] > stream.left:
            weights.append(table.symbols[states[1 - turn]])
            return weights
        states[turn] = table.next(state, stream)
        turn = 1 - turn
    raise FormatError("a zstd Huffman table has too many symbols")


def _build_huffman_table(weights: list[int]) -> HuffmanTable:
    """Give each symbol its codes; the last symbol's weight is what is missing to a power of 2."""
    total = sum(1 << weight - 1 for weight in weights if weight)
    log = total.bit_length()
    missing = (1 << log) - total
    if total == 0 or log > _MAX_HUFFMAN_BITS or missing & missing - 1 or len(weights) > 255:
        raise FormatError("a zstd Huffman table does not add up")
    weights = [*weights, missing.bit_length()]
    if 1 not in weights:  # a power of 2, but without codes of full length: as libzstd has it
        raise FormatError("a zstd Huffman table does not add up")
    symbols, lengths = bytearray(), bytearray()
    for weight in range(1, log + 1):
        for symbol, own in enumerate(weights):
            if own == weight:
                symbols += bytes([symbol]) * (1 << weight - 1)
                lengths += bytes([log + 1 - weight]) * (1 << weight - 1)
    return HuffmanTable(log, bytes(symbols), bytes(lengths))


def huffman_decode(data: bytes, table: HuffmanTable, count: int) -> bytes:
    """Exactly `count` symbols from one stream [4.2.2], which they must use up."""
    left = BackwardBits(data).left + 8 * _GUARD_BYTES
    padded = bytes(_GUARD_BYTES) + data
    symbols, lengths, log = table.symbols, table.lengths, table.log
    mask = (1 << log) - 1
    out = bytearray()
    while len(out) < count and left >= 8 * _GUARD_BYTES:
        start = max(left - _WINDOW_BITS, 0) & ~7
        window = int.from_bytes(padded[start >> 3 : (left + 7) >> 3], "little")
        shift = left - start - log
        # Each code takes `log` bits at most, so none of these looks beyond the window.
        for _ in range(min(count - len(out), (left - start) // log)):
            index = window >> shift & mask
            out.append(symbols[index])
            shift -= lengths[index]
        left = start + shift + log
    if len(out) != count or left != 8 * _GUARD_BYTES:
        raise FormatError("zstd literals are cut off or too many")
    return bytes(out)
