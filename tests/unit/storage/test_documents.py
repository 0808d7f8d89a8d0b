"""JSON and TOML from untrusted sources, within limits."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.errors import FormatError
from fatwheel.storage.documents import (
    DEEPEST,
    MOST,
    MOST_TOML,
    TomlError,
    json_bytes,
    read_object,
    read_toml,
)

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


def read(tmp_path: Path, data: bytes) -> dict[str, object]:
    file = tmp_path / "x.toml"
    file.write_bytes(data)
    return read_toml(file)[1]


def test_values_are_read_with_or_without_a_mark_of_the_byte_order(tmp_path: Path) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        assert read(tmp_path, mark + b"a = 1\r\n[b.c]\nd = 'x.y.z'\n") == {
            "a": 1, "b": {"c": {"d": "x.y.z"}},
        }  # fmt: skip


def test_long_texts_with_many_dots_are_no_keys(tmp_path: Path) -> None:
    sentence = "It is so, and so. " * 3000
    versions = "[" + ", ".join(f'"1.{n}.0"' for n in range(3000)) + "]"
    found = read(tmp_path, f'a = "{sentence}"\nb = [\n{versions},\n]\n'.encode())
    assert found["a"] == sentence


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a = " + b"1" * 5000, "1: a number has too many digits"),
        (b"a = " + b"[" * 100_000, "1: nested too deeply"),
        (b"a = " + b"{b=" * 100_000, "1: nested too deeply"),
        (b"a = 1\n" + b"a." * 200_000 + b"a = 1", "2: a key with too many parts"),
        (b"[" + b'"a" . ' * 100_000 + b"a]", "1: a key with too many parts"),
        (b"[" + b'".".' * 100_000 + b"a]", "1: a key with too many parts"),
        (b'"%".' * 60_000 + b"a = 1", "1: a key with too many parts"),
        (b"#" * (MOST_TOML + 1), f"1: it has more than {MOST_TOML} bytes"),
        (b"a = 1\nb = '\xff'", "2: not UTF-8: byte 0xff"),
        (b"a = '\xed\xa0\x80'", "1: not UTF-8: byte 0xed"),
        (b'a = "\\ud800"', "1:12: not TOML"),
        (b"a = '\0'", "1:6: not TOML"),
        (b"a = ", "1: not TOML"),
    ],
    ids=[
        "a number of 5000 digits", "deep arrays", "deep tables", "a deep key", "a deep header",
        "dots in quotes", "quoted parts", "too large", "no UTF-8", "half a surrogate", "its escape",
        "a NUL", "cut",
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_takes_no_time(
    tmp_path: Path, data: bytes, says: str
) -> None:
    start = time.process_time()
    with pytest.raises(TomlError) as caught:
        read(tmp_path, data)
    assert str(caught.value).startswith(says)
    assert len(str(caught.value)) < 300
    assert time.process_time() - start < 5


def test_a_table_of_many_keys_takes_no_time(tmp_path: Path) -> None:
    header = "[" + ".".join("a" * 20) + "]\n"
    text = header + "".join(f"k{n}=1\n" for n in range(100_000))
    start = time.process_time()
    read(tmp_path, text.encode())
    assert time.process_time() - start < 10
