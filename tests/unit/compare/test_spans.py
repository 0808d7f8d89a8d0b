"""Where two runs of bytes differ, and what can be read there."""

from __future__ import annotations

import pytest

from fatwheel.compare.differences import extent, first_difference, strings_at

LONG = bytes(range(256)) * 1000  # several pieces


@pytest.mark.parametrize(
    ("one", "other", "place"),
    [
        (b"", b"", None),
        (b"abc", b"abc", None),
        (b"abc", b"abd", 2),
        (b"abc", b"abcd", 3),
        (b"", b"a", 0),
        (LONG, LONG[:70_000] + b"\xff" + LONG[70_001:], 70_000),
        (LONG, LONG[:-1], len(LONG) - 1),
        (LONG, LONG, None),
    ],
)
def test_the_first_byte_that_differs(one: bytes, other: bytes, place: int | None) -> None:
    assert first_difference(memoryview(one), memoryview(other)) == place
    assert first_difference(memoryview(other), memoryview(one)) == place


def test_how_they_differ_in_words() -> None:
    same_size = extent(memoryview(b"abcd"), memoryview(b"abxd"))
    assert same_size == "4 bytes in both; the first that differs is at 0x2"
    other_size = extent(memoryview(b"abcd"), memoryview(b"ab"))
    assert other_size == "4 bytes became 2; the first that differs is at 0x2"


def test_a_string_is_told_where_both_sides_have_text() -> None:
    one = memoryview(b"\0/home/me/a.cpp\0rest")
    other = memoryview(b"\0/root/b/a.cpp\0more")
    assert strings_at(one, other, 2) == ("/home/me/a.cpp", "/root/b/a.cpp")
    assert strings_at(one, memoryview(b"\0/\x01\x02\x03\x04\x05\x06\0"), 2) is None
    assert strings_at(memoryview(b"\0ab\0"), memoryview(b"\0ac\0"), 2) is None, "too short"
