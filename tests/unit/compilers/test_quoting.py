"""Words of Windows command lines, against Microsoft's own examples and Python's own quoting."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.compilers.msvc import join_words, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # The table in "Parsing C command-line arguments".
        ('"a b c" d e', ["a b c", "d", "e"]),
        ('"ab\\"c" "\\\\" d', ['ab"c', "\\", "d"]),
        ('a\\\\\\b d"e f"g h', ["a\\\\\\b", "de fg", "h"]),
        ('a\\\\\\"b c d', ['a\\"b', "c", "d"]),
        ('a\\\\\\\\"b c" d e', ["a\\\\b c", "d", "e"]),
        ('a"b"" c d', ['ab" c d']),
        # Paths, and what stands between words.
        ("/IC:\\new\\table  /DX", ["/IC:\\new\\table", "/DX"]),
        ("one\r\ntwo\tthree\n", ["one", "two", "three"]),
        ('""', [""]),
        ('a "" b', ["a", "", "b"]),
        ("", []),
        ("  ", []),
    ],
)
def test_words_as_the_c_run_time_sees_them(text: str, words: list[str]) -> None:
    assert split_words(text) == words


WORDS = st.lists(st.text(alphabet='ab \\"\t=,;', max_size=8), max_size=5)


@given(WORDS)
def test_what_python_quotes_is_read_back(words: list[str]) -> None:
    assert split_words(subprocess.list2cmdline(words)) == words


@given(WORDS)
def test_what_is_joined_is_read_back(words: list[str]) -> None:
    assert split_words(join_words(words)) == words


def test_words_are_quoted_where_they_must_be() -> None:
    assert join_words(['-DA="x"', "C:\\a b\\", "/c", ""]) == ('"-DA=\\"x\\"" "C:\\a b\\\\" /c ""')
