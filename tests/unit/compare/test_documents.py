"""JSON documents compared field by field."""

from __future__ import annotations

from typing import Any

import pytest

from fatwheel.compare.documents import differing_fields, said


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a.b", "1", "2")]),
        ({"a": "x"}, {}, [("a", "x", None)]),
        ({"a": "1"}, {"a": 1}, [("a", '"1"', "1")]),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, [("a", "[1, 2]", "[1, 2, 3]")]),
        ({"a": [{"name": "x", "v": 1}, {"name": "y", "v": 2}]},
         {"a": [{"name": "y", "v": 3}]},
         [("a[x].name", "x", None), ("a[x].v", "1", None), ("a[y].v", "2", "3")]),
        ({"a": [{"name": "x"}, {"name": "x"}]}, {"a": [{"name": "x"}, {"name": "z"}]},
         [("a[1].name", "x", None), ("a[0].name", "x", None), ("a[x].name", None, "x"),
          ("a[z].name", None, "z")]),
        ({"a": {}}, {"a": None}, [("a", "{}", "null")]),
    ],
)  # fmt: skip
def test_fields_by_name(one: Any, other: Any, expected: list[tuple[str, str, str]]) -> None:
    assert sorted(differing_fields(one, other)) == sorted(expected)


def test_words() -> None:
    assert said("python", "3.11", "3.12") == "python: 3.11 became 3.12"
    assert said("torch", None, "2.11.0") == "torch: nothing became 2.11.0"


def test_values_are_cut() -> None:
    [(_, one, _)] = differing_fields({"a": "x" * 10_000}, {"a": "y"})
    assert one is not None
    assert len(one) < 300
