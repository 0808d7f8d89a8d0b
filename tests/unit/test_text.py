"""Sizes, durations and foreign text. Expected values are worked out by hand."""

from __future__ import annotations

import pytest

from fatwheel import text


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (123_456_789, "117.7 MiB"),
        (2**30 - 1, "1.0 GiB"),  # never "1024.0 MiB"
        (12 * 2**30, "12.0 GiB"),
        (5 * 2**50, "5120.0 TiB"),
    ],
)
def test_sizes_use_the_largest_unit_that_leaves_a_number_above_one(
    count: int, expected: str
) -> None:
    assert text.size(count) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.0 s"),
        (12.06, "12.1 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),  # never "60.0 s"
        (83, "1 min 23 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert text.duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "under 1 min"),
        (59, "under 1 min"),
        (89, "about 1 min"),
        (360, "about 6 min"),
        (3590, "about 1 h 00 min"),
        (7500, "about 2 h 05 min"),
    ],
)
def test_estimates_are_not_more_exact_than_they_deserve(seconds: float, expected: str) -> None:
    assert text.rough_duration(seconds) == expected


def test_nouns_follow_their_number() -> None:
    counted = [text.count(number, "unit") for number in (0, 1, 2)]
    assert counted == ["0 units", "1 unit", "2 units"]


def test_control_characters_from_outside_are_shown_not_obeyed() -> None:
    hostile = "a\x1b[31mred\x07\r\nnext\tcolumn \u202egnp.exe \udc80 grün"
    assert text.clean(hostile) == "a\\x1b[31mred\\x07\nnext\tcolumn \\u202egnp.exe \\udc80 grün"
    line = text.one_line(hostile)
    assert line == "a\\x1b[31mred\\x07\\nnext\tcolumn \\u202egnp.exe \\udc80 grün"
