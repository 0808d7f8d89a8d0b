"""JSON from anywhere: what is read, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.errors import FormatError
from fatwheel.storage.documents import DEEPEST, MOST, json_bytes, read_object

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_what_is_written_is_read_again(content: dict[str, object]) -> None:
    assert read_object(json_bytes(content), "a.json") == content


def test_documents_have_one_form() -> None:
    assert json_bytes({"b": [1], "a": "é"}) == b'{\n "a": "\\u00e9",\n "b": [\n  1\n ]\n}\n'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b'{"a": 1} x', "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "'c' appears twice"),
        (b"[]", "not one JSON object"),
        (b"null", "not one JSON object"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b" " * (MOST + 1), f"it has {MOST + 1} bytes"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "nested more than"),
        (b'{"a":' + b"[" * DEEPEST + b"]" * DEEPEST + b"}", "nested more than"),
    ],
)
def test_everything_else_is_refused_with_its_place(data: bytes, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_object(data, "a.json")
    assert words in caught.value.what
    assert caught.value.where == "a.json"


def test_numbers_that_python_refuses_to_read_are_refused() -> None:
    with pytest.raises(FormatError, match="cannot be read as JSON"):
        read_object(b'{"a": ' + b"1" * 100_000 + b"}", "a.json")


def test_what_is_deep_but_not_too_deep_is_read() -> None:
    data = b'{"a":' * (DEEPEST - 1) + b"1" + b"}" * (DEEPEST - 1)
    assert read_object(data, "a.json") == json.loads(data)
