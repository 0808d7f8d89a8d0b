"""Where two JSON values differ, in words."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.verify.papers import differing

TORCH = {"name": "torch", "digest": {"sha256": "1"}}
NUMPY = {"name": "numpy", "digest": {"sha256": "2"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("right", "found", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: it says 2, not 1"]),
        ({"a": 1}, {"a": "1"}, ['a: it says "1", not 1']),
        ({"a": 1}, {"a": True}, ["a: it says true, not 1"]),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, [
            "a.b: it is not there", "a.c: it does not belong there",
        ]),
        ({"a": [1]}, {"a": {}}, ["a: it says {}, not [1]"]),
        ({"a": ["80", "90"]}, {"a": ["80"]}, ['a: "90" is not there']),
        ({"a": ["80"]}, {"a": ["80", "90"]}, ['a: "90" does not belong there']),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a: it is in a different order, or lists something twice"]),
        ({"a": [1]}, {"a": [1, 1]}, ["a: it is in a different order, or lists something twice"]),
        ({"a": [TORCH]}, {"a": [NUMPY]}, [
            "a: torch is not there", "a: numpy does not belong there",
        ]),
        ({"a": [TORCH]}, {"a": [{**TORCH, "digest": {"sha256": "3"}}]}, [
            'a, torch.digest.sha256: it says "3", not "1"',
        ]),
        ({"a": [TORCH]}, {"a": [{"name": ["torch"]}]}, [
            "a: torch is not there", 'a: {"name": ["torch"]} does not belong there',
        ]),
    ],
)  # fmt: skip
def test_each_part_that_is_not_right_has_a_line(right: Any, found: Any, lines: list[str]) -> None:
    assert list(differing(right, found)) == lines


@given(JSON)
def test_the_same_is_the_same(value: Any) -> None:
    assert list(differing(value, copy.deepcopy(value), "x")) == []


@given(JSON, JSON)
def test_what_is_not_the_same_has_a_line(one: Any, other: Any) -> None:
    """For Python, but not here, True is 1."""
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert bool(list(differing(one, other, "x"))) != same


def test_values_and_names_are_no_longer_than_a_line() -> None:
    lines = list(differing({}, {"k" * 500: 1})) + list(differing("a", "b" * 500, "x"))
    assert all(len(line) < 200 for line in lines)


def test_many_items_are_compared_in_no_time() -> None:
    many = [str(number) for number in range(200_000)]
    assert len(list(differing({"a": ["x"]}, {"a": many}))) == len(many) + 1
