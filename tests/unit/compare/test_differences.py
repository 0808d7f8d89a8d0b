"""What a comparison is, apart from how it is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.compare.differences import LEVELS, Comparison, Difference, Place, Side

ONE, OTHER = Side(Path("a/x.whl"), 1, "a" * 64), Side(Path("b/x.whl"), 2, "b" * 64)


@pytest.mark.parametrize(
    ("levels", "highest"),
    [
        (["kernel", "section", "binary"], "binary"),
        (["archive", "pins", "files"], "pins"),
        (["archive"], "archive"),
        ([], None),
    ],
)
def test_the_highest_level(levels: list[str], highest: str | None) -> None:
    differences = tuple(Difference(level, "x") for level in levels)
    assert Comparison(ONE, OTHER, differences=differences).level == highest


def test_levels_go_from_the_wheel_down_to_the_kernel() -> None:
    order = ["files", "text", "binary", "section", "unit", "image", "kernel"]
    assert [level for level in LEVELS if level in order] == order


def test_identical_are_wheels_of_the_same_bytes() -> None:
    assert not Comparison(ONE, OTHER).identical
    assert Comparison(ONE, Side(Path("c.whl"), 1, "a" * 64)).identical


def test_json_has_null_where_a_place_does_not_apply() -> None:
    place = Place("a.so").at(section=".text", container=0)
    shown = Difference("section", "x", place, one="1").to_json()
    assert (shown["file"], shown["section"], shown["container"]) == ("a.so", ".text", 0)
    assert (shown["unit"], shown["image"], shown["symbol"], shown["other"]) == (None,) * 4
