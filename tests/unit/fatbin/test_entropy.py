"""Zstandard's entropy coders: the tables that RFC 8878 prints, and streams coded by hand.

test_zstd.py has whole frames, made by the library.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import zstandard

from fatwheel.errors import FormatError
from fatwheel.fatbin import entropy
from fatwheel.fatbin.entropy import (
    BackwardBits,
    build_fse_table,
    huffman_decode,
    read_fse_table,
    read_huffman_table,
    single_symbol_table,
)
from fatwheel.fatbin.zstd import decompress

# RFC 8878, section 3.1.1.3.2.2.3: the default distribution of offsets, and appendix A.3: the
# table that it gives (state: symbol, number of bits, baseline).
OFFSETS = [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1,
           -1]  # fmt: skip
OFFSET_TABLE = [
    (0, 5, 0), (6, 4, 0), (9, 5, 0), (15, 5, 0), (21, 5, 0), (3, 5, 0), (7, 4, 0), (12, 5, 0),
    (18, 5, 0), (23, 5, 0), (5, 5, 0), (8, 4, 0), (14, 5, 0), (20, 5, 0), (2, 5, 0), (7, 4, 16),
    (11, 5, 0), (17, 5, 0), (22, 5, 0), (4, 5, 0), (8, 4, 16), (13, 5, 0), (19, 5, 0), (1, 5, 0),
    (6, 4, 16), (10, 5, 0), (16, 5, 0), (28, 5, 0), (27, 5, 0), (26, 5, 0), (25, 5, 0), (24, 5, 0),
]  # fmt: skip


def pack(*fields: tuple[int, int]) -> bytes:
    """(value, bits) from the lowest bit on."""
    number = position = 0
    for value, bits in fields:
        number |= value << position
        position += bits
    return number.to_bytes((position + 7) // 8, "little")


def stream(bits: str) -> bytes:
    """A backward stream whose bits, in the order of reading, are these."""
    number = int("1" + bits, 2)
    return number.to_bytes((number.bit_length() + 7) // 8, "little")


# -- bits ----------------------------------------------------------------------------------------


def test_bits_are_read_from_the_end() -> None:
    bits = BackwardBits(stream("101" + "0" + "11001100110011" + "01"))
    assert [bits.read(count) for count in (3, 1, 0, 14, 2)] == [5, 0, 0, 0b11001100110011, 1]
    bits.check_all_read()


@pytest.mark.parametrize("count", range(1, 25))
def test_the_end_mark_may_be_any_bit_of_the_last_byte(count: int) -> None:
    assert BackwardBits(stream("1" * count)).left == count


def test_streams_without_an_end_mark_or_of_another_length_are_refused() -> None:
    for data in (b"", b"\xff\0"):
        with pytest.raises(FormatError, match="no end mark"):
            BackwardBits(data)
    bits = BackwardBits(stream("1011"))
    with pytest.raises(FormatError, match="cut off"):
        bits.read(5)
    bits = BackwardBits(stream("1011"))
    bits.read(1)
    with pytest.raises(FormatError, match="3 bits too many"):
        bits.check_all_read()


# -- finite states -------------------------------------------------------------------------------


def test_the_table_of_the_standard() -> None:
    table = build_fse_table(OFFSETS, 5)
    assert list(zip(table.symbols, table.bits, table.base, strict=True)) == OFFSET_TABLE


def test_states_follow_one_another() -> None:
    """State 1 of that table reads 4 bits from 0 on, state 15 four from 16 on."""
    table = build_fse_table(OFFSETS, 5)
    bits = BackwardBits(stream("1111" + "0110"))
    states = [table.next(1, bits), table.next(15, bits)]
    assert states == [15, 16 + 6]


def test_a_single_symbol_reads_nothing() -> None:
    table, bits = single_symbol_table(7), BackwardBits(stream(""))
    assert table.next(0, bits) == 0
    assert table.symbols[0] == 7
    bits.check_all_read()


def description(log: int, probabilities: Sequence[int]) -> bytes:
    """What section 4.1.1 makes of a distribution in which no zero follows another."""
    fields, left = [(log - 5, 4)], 1 << log
    for index, probability in enumerate(probabilities):
        value, highest = probability + 1, left + 1
        bits = highest.bit_length()
        spare = (1 << bits) - 1 - highest  # values that take one bit less
        if value < spare:
            fields.append((value, bits - 1))
        else:
            fields.append((value + spare if value >= 1 << bits - 1 else value, bits))
        if probability == 0:
            assert probabilities[index + 1] != 0, "the sample needs repeat flags"
            fields.append((0, 2))
        left -= abs(probability)
    assert left == 0, "the sample does not add up"
    return pack(*fields)


@pytest.mark.parametrize(
    ("value", "coded", "bits"),
    [(0, 0, 7), (97, 97, 7), (98, 98, 8), (127, 127, 8), (128, 226, 8), (157, 255, 8)],
)
def test_the_example_of_the_standard(value: int, coded: int, bits: int) -> None:
    """Section 4.1.1: values of 0 to 157 are left; those below 98 take 7 bits, the others 8."""
    following = 0b1011 << bits
    found = entropy._read_probability((coded | following) << 3, position=3, remaining=156)
    assert found == (value, 3 + bits)


@pytest.mark.parametrize(
    "probabilities",
    [
        [32],
        [-1] * 32,
        [16, 16],
        [0, 31, 0, -1],
        [-1, 30, 1],
        [10, 0, 5, -1, 0, 7, 9],
    ],
)
def test_descriptions_are_read_as_the_standard_says(probabilities: list[int]) -> None:
    data = description(5, probabilities)
    table, used = read_fse_table(data + b"what follows", 255, 9)
    assert (table.log, used) == (5, len(data))
    assert [table.symbols.count(n) for n in range(len(probabilities))] == [
        abs(probability) for probability in probabilities
    ]


def test_repeat_flags_stand_for_zeros() -> None:
    """0, then 3 + 1 more zeros, then all 32: values 1 and 33 of 33, with 6 bits each."""
    data = pack((0, 4), (1, 5), (3, 2), (1, 2), (33 + 30, 6))
    table, used = read_fse_table(data, 255, 9)
    assert set(table.symbols) == {5}
    assert used == len(data) == 3


def test_descriptions_that_cannot_be_are_refused() -> None:
    with pytest.raises(FormatError, match=r"2\*\*10 states is too large"):
        read_fse_table(pack((5, 4), (0, 12)), 255, 9)
    many = description(5, [1] * 32)
    with pytest.raises(FormatError, match="too many symbols"):
        read_fse_table(many, 31, 9)
    zeros = pack((0, 4), (1, 5), *[(3, 2)] * 2000)
    with pytest.raises(FormatError, match="too many symbols"):
        read_fse_table(zeros, 255, 9)
    for length in range(len(many)):
        with pytest.raises(FormatError, match="cut off"):
            read_fse_table(many[:length], 255, 9)


# -- Huffman -------------------------------------------------------------------------------------

# RFC 8878, section 4.2.1.1: literals 0 to 5 of weights 4, 3, 2, 0, 1, and 1 that is not written.
WEIGHTS = [4, 3, 2, 0, 1]
CODES = {0: "1", 1: "01", 2: "001", 4: "0000", 5: "0001"}


def directly(weights: Sequence[int]) -> bytes:
    """Half a byte for each weight."""
    padded = [*weights, 0]
    halves = zip(padded[::2], padded[1::2], strict=False)
    return bytes([127 + len(weights), *(high << 4 | low for high, low in halves)])


def test_the_codes_of_the_standard() -> None:
    table, used = read_huffman_table(directly(WEIGHTS) + b"next")
    assert (table.log, used) == (4, 1 + 3)
    for symbol, code in CODES.items():
        first = int(code.ljust(4, "0"), 2)
        states = range(first, first + (1 << 4 - len(code)))
        assert {(table.symbols[s], table.lengths[s]) for s in states} == {(symbol, len(code))}


@pytest.mark.parametrize("count", [1, 2, 55, 56, 57, 223, 224, 225, 1000])
def test_streams_of_any_length(count: int) -> None:
    """The decoder takes 224 bits at a time."""
    table, _ = read_huffman_table(directly(WEIGHTS))
    literals = bytes((0, 4, 1, 5, 2, 4, 4)[n % 7] for n in range(count))
    coded = stream("".join(CODES[literal] for literal in literals))
    assert huffman_decode(coded, table, count) == literals
    for wrong in (count - 1, count + 1):
        with pytest.raises(FormatError, match="cut off or too many"):
            huffman_decode(coded, table, wrong)


def test_weights_coded_by_two_states_in_turn() -> None:
    """Section 4.2.1.2, by hand, with two symbols of 16 states each.

    Every 23rd of the 32 states, modulo 32, is of symbol 0: in order 0, 1, 2, 5 ...; the others,
    3, 4, 7 ..., are of symbol 1. All read one bit, with baseline 0 for the first state of a symbol,
    2 for the second, and so on.
    """
    # One state goes from 4 (weight 1) to 2 + 1 = 3 (1), the other from 0 (0) to 0 + 1 = 1 (0).
    coded = description(5, [16, 16]) + stream("00100" + "00000" + "1" + "1")
    table, used = read_huffman_table(bytes([len(coded)]) + coded + b"next")
    assert used == 1 + len(coded)
    # The weights are 1, 0, 1, 0, and 2, which is missing to 4.
    assert (table.log, table.symbols, table.lengths) == (2, b"\0\2\4\4", b"\2\2\1\1")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (directly([0, 0]), "does not add up"),
        (directly([3, 1]), "does not add up"),  # 4 + 1: 3 are missing, which is no power of 2
        (directly([12, 11]), "does not add up"),  # codes of 12 bits
        (directly([1, 1, 1])[:-1], "cut off"),
        (b"\x05\x10", "cut off"),
        (b"\x00", "cut off"),
    ],
)
def test_huffman_tables_that_cannot_be_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_huffman_table(data)


def test_a_table_without_codes_of_full_length_is_refused() -> None:
    """As the library does: two codes of 1 bit by weights 1 and 1, but not by 2 and 2."""
    literals = bytes(n * n // 8 % 2 for n in range(64))
    coded = stream("".join(map(str, literals)))

    def frame(tree: bytes) -> bytes:
        """One block of Huffman-coded literals and no sequences."""
        block = (2 | 64 << 4 | len(tree + coded) << 14).to_bytes(3, "little") + tree + coded + b"\0"
        return bytes.fromhex("28b52ffd2040") + (5 | len(block) << 3).to_bytes(3, "little") + block

    assert zstandard.ZstdDecompressor().decompress(frame(directly([1]))) == literals
    assert decompress(frame(directly([1])), 64) == literals
    with pytest.raises(zstandard.ZstdError):
        zstandard.ZstdDecompressor().decompress(frame(directly([2])))
    with pytest.raises(FormatError, match="does not add up"):
        decompress(frame(directly([2])), 64)
