"""Texts compared line by line."""

from __future__ import annotations

import pytest

from fatwheel.compare.differences import MOST_TEXT, Position, as_text, differing_lines

PLACE = Position("a.py")


def told(one: str, other: str) -> list[tuple[str, str | None, str | None]]:
    return [(found.what, found.one, found.other) for found in differing_lines(PLACE, one, other)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a\nb\nc\n", "a\nB\nc\n", [("line 2", "b", "B")]),
        ("a\nc\n", "a\nb\nc\n", [("line 2, only in the second", None, "b")]),
        ("a\nb\nc\n", "a\nc\n", [("line 2, only in the first", "b", None)]),
        ("a\nb\nc\nd\n", "A\nb\nc\nD\n", [("line 1", "a", "A"), ("line 4", "d", "D")]),
        ("a\nb\n", "a\nb", [("the last line has no line end in the second", None, None)]),
        ("a", "a\n", [("the last line has no line end in the first", None, None)]),
        ("a\r\n", "a\n", [("line 1", "a\r", "a")]),
        ("", "a\n", [("line 1, only in the second", None, "a")]),
    ],
)  # fmt: skip
def test_every_line_that_differs_is_told(
    one: str, other: str, expected: list[tuple[str, str | None, str | None]]
) -> None:
    assert told(one, other) == expected


def test_of_a_long_line_the_part_that_differs_is_kept() -> None:
    [(_, one, other)] = told("x" * 5000 + "a" + "y" * 5000, "x" * 5000 + "b" + "y" * 5000)
    assert one is not None
    assert other is not None
    assert len(one) <= MOST_TEXT + 2
    assert (one[0], one[-1]) == ("…", "…")
    assert one.replace("a", "b") == other
    assert "xxay" in one


def test_one_line_of_a_long_text() -> None:
    lines = [f"line {n}" for n in range(50_000)]
    one = "\n".join(lines)
    lines[30_000] = "other"
    assert told(one, "\n".join(lines)) == [("line 30001", "line 30000", "other")]


def test_texts_with_little_in_common_take_no_time() -> None:
    one = "\n".join(f"{n % 3}" for n in range(100_000))
    other = "\n".join(f"{n % 5}" for n in range(90_000))
    [(what, _, _)] = told(one, other)
    assert what.endswith("became 89997") or "lines from line" in what


def test_what_is_text() -> None:
    assert as_text("größe\n".encode()) == "größe\n"
    assert as_text(b"\xff\xfe") is None
    assert as_text(b"a\0b") is None
