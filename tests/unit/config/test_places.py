"""load.places: the line of every key, counted by hand in a text with all of TOML's forms."""

from __future__ import annotations

import pytest

from fatwheel.config.mistakes import TomlLines

TEXT = '''\
# line 1: comments, [not.a.table], key = "no key"
top = 1
dotted . "quoted.key" . 'literal' = true
multi = """
fake = 1
[fake]
\\""" still
"""""
literal = \'\'\'
fake = "2"
\'\'\'
array = [ 1, # one
  2,
  [ "]", """
]""" ],
  { a = 1,
  b = [2] },
]
date = 1979-05-27 07:32:00Z # with a space
empty = ""

[table] # line 22
x = { y.z = 1, w = {} }
"\\u00e9" = 'accent'

[ table . "deep er" ]
k = 1
[[items]]
a = 1
[[items]] # line 30
a = 2
[items.sub]
b = 3
[[items.more]]
c = 4
[[items.more]]
c = 5
'''

LINES = {
    (): 1,
    ("top",): 2,
    ("dotted",): 3,
    ("dotted", "quoted.key"): 3,
    ("dotted", "quoted.key", "literal"): 3,
    ("multi",): 4,
    ("literal",): 9,
    ("array",): 12,
    ("array", 0): 12,
    ("array", 1): 13,
    ("array", 2): 14,
    ("array", 2, 0): 14,
    ("array", 2, 1): 14,
    ("array", 3): 16,
    ("array", 3, "a"): 16,
    ("array", 3, "b"): 17,
    ("array", 3, "b", 0): 17,
    ("date",): 19,
    ("empty",): 20,
    ("table",): 22,
    ("table", "x"): 23,
    ("table", "x", "y"): 23,
    ("table", "x", "y", "z"): 23,
    ("table", "x", "w"): 23,
    ("table", "é"): 24,
    ("table", "deep er"): 26,
    ("table", "deep er", "k"): 27,
    ("items",): 28,
    ("items", 0): 28,
    ("items", 0, "a"): 29,
    ("items", 1): 30,
    ("items", 1, "a"): 31,
    ("items", 1, "sub"): 32,
    ("items", 1, "sub", "b"): 33,
    ("items", 1, "more"): 34,
    ("items", 1, "more", 0): 34,
    ("items", 1, "more", 0, "c"): 35,
    ("items", 1, "more", 1): 36,
    ("items", 1, "more", 1, "c"): 37,
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_key_has_its_line(newline: str) -> None:
    places = TomlLines(TEXT.replace("\n", newline))
    assert {key: places.line(key) for key in LINES} == LINES


def test_a_missing_key_has_the_line_of_its_table() -> None:
    places = TomlLines(TEXT)
    assert places.line(("missing",)) == 1
    assert places.line(("table", "x", "missing")) == 23
    assert places.line(("items", 1, "sub", "missing", 3)) == 32


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "a=1", "[a]", "a.b={}\n"])
def test_small_texts(text: str) -> None:
    assert TomlLines(text).line(("a", "b", "c")) == 1
