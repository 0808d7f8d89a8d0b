"""Finds the line of each key in a TOML text (tomllib gives values without lines), for messages.

Grammar: TOML 1.0 (toml.io/en/v1.0.0). The text must already have been accepted by a TOML
parser; so this scanner only finds its way and checks nothing but how deep keys are.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from . import fields

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Key = tuple[str | int, ...]

_DEEPEST = 100  # parts of a dotted key, each of which is a table in the one before

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\n#]+")  # numbers, booleans, dates (which may hold a space)


class TomlLines:
    """The lines (from 1) of a TOML text's keys, tables and array items.

    A key is a path from the root: ("source", "sha256"), ("cost", 0, "units").
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[Key, int] = {(): 1}
        self._items: dict[Key, int] = {}  # how many tables an array of tables has so far
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._text = text
        self._at = 0
        self._scan()

    def line(self, key: Key) -> int:
        """The line of a key; of the table that should hold it where the key is missing."""
        while key not in self._lines:
            key = key[:-1]
        return self._lines[key]

    def _scan(self) -> None:
        table: Key = ()
        while self._next():
            if self._next() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Key:
        start = self._at
        is_array = self._text.startswith("[[", start)
        self._at += 2 if is_array else 1
        *parents, last = self._keys()
        self._at = self._text.index("]", self._at) + (2 if is_array else 1)
        table: Key = ()
        for name in parents:
            table = self._current((*table, name))
        table = (*table, last)
        if is_array:
            self._items[table] = self._items.get(table, 0) + 1
        table = self._current(table)
        self._note(table, start)
        return table

    def _current(self, table: Key) -> Key:
        """A header's name for an array of tables means the table begun last."""
        return (*table, self._items[table] - 1) if table in self._items else table

    def _pair(self, table: Key) -> None:
        start = self._at
        key = table + tuple(self._keys())
        self._note(key, start)
        self._at = self._text.index("=", self._at) + 1
        self._value(key)

    def _keys(self) -> list[str]:
        """Read a dotted key."""
        keys = [self._key()]
        while self._next() == ".":
            self._at += 1
            keys.append(self._key())
        if len(keys) > _DEEPEST:
            raise RecursionError
        return keys

    def _key(self) -> str:
        if self._next() in ('"', "'"):
            quoted = self._take(_STRING)
            return str(tomllib.loads(f"key = {quoted}")["key"])
        return self._take(_BARE_KEY)

    def _value(self, key: Key) -> None:
        first = self._next()
        if first == "[":
            self._array(key)
        elif first == "{":
            self._inline_table(key)
        else:
            self._take(_STRING if first in ('"', "'") else _SCALAR)

    def _array(self, key: Key) -> None:
        self._at += 1
        index = 0
        while self._next() != "]":
            self._note((*key, index), self._at)
            self._value((*key, index))
            self._comma()
            index += 1
        self._at += 1

    def _inline_table(self, key: Key) -> None:
        self._at += 1
        while self._next() != "}":
            self._pair(key)
            self._comma()
        self._at += 1

    def _comma(self) -> None:
        if self._next() == ",":
            self._at += 1

    def _next(self) -> str:
        """Go past blanks and comments; the character there, '' at the end."""
        self._take(_BLANK)
        return self._text[self._at : self._at + 1]

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"no TOML at character {self._at}: {self._text[self._at :][:20]!r}")
        self._at = match.end()
        return match[0]

    def _note(self, key: Key, start: int) -> None:
        """Record a key's line, and that of the tables it brings into being."""
        line = bisect_left(self._ends, start) + 1
        for length in range(1, len(key) + 1):
            self._lines.setdefault(key[:length], line)


# -- mistakes in words -----------------------------------------------------------------------------

# Says a file's mistakes in the user's words: where each stands, what is wrong, what is valid.


T = TypeVar("T")

_LONGEST = 40  # characters of a word that may have been meant for a known one
_WANTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "tuple_type": "an array",
    "dict_type": "a table",
    "dataclass_type": "a table",
}


def read_table(kind: type[T], raw: Mapping[str, Any]) -> tuple[T | None, list[tuple[Key, str]]]:
    """A file's values as what they are; else all places where they are wrong, with a message."""
    try:
        return fields.adapter(kind).validate_python(
            raw, by_alias=True, by_name=False, context=fields.TOML
        ), []
    except ValidationError as error:
        return None, [_mistake(kind, detail) for detail in error.errors(include_url=False)]


def keys_of(kind: type) -> dict[str, FieldInfo]:
    """The keys that a table may have."""
    found = {}
    hints = get_type_hints(kind, include_extras=True)
    for one in dataclasses.fields(kind):
        info = FieldInfo.from_annotation(hints[one.name])
        if not info.exclude:
            found[info.serialization_alias or one.name] = info
    return found


def is_extra(detail: Mapping[str, Any]) -> bool:
    """Whether a mistake is a key that there is not."""
    refused = str(detail["msg"]) == f"Value error, {fields.EXTRA}"
    return refused or str(detail["type"]) == "unexpected_keyword_argument"


def _mistake(kind: type, detail: Mapping[str, Any]) -> tuple[Key, str]:
    # pydantic marks what is wrong with a dictionary's key by a last '[key]'.
    key = tuple(part for part in detail["loc"] if part != "[key]")
    return key, _message(kind, key, detail)


def _message(kind: type, key: Key, detail: Mapping[str, Any]) -> str:
    wrong = detail["type"]
    if is_extra(detail):
        return f"unknown key; {suggestion(str(key[-1]), keys_of(_table(kind, key[:-1])))}"
    if wrong == "value_error":
        return str(detail["ctx"]["error"])
    if wrong == "missing":
        return f"missing: {keys_of(_table(kind, key[:-1]))[str(key[-1])].description}"
    if wrong == "literal_error":
        return f"must be {detail['ctx']['expected']}, not {_shown(detail['input'])}"
    if wrong == "string_type" and isinstance(detail["input"], (int, float)):
        return f"must be a string, not {_shown(detail['input'])}; put it in quotes"
    if wrong == "too_long":
        return f"has more than {detail['ctx']['max_length']} items"
    if wrong in _WANTED:
        return f"must be {_WANTED[wrong]}, not {_shown(detail['input'])}"
    return str(detail["msg"])


def suggestion(word: str, valid: Iterable[str]) -> str:
    """`did you mean 'memory'?`, or the list of valid words where none is near."""
    words = sorted(valid)
    near = get_close_matches(word[:_LONGEST], words, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"valid: {', '.join(words)}"


def _table(kind: type, key: Key) -> type:
    """The type of the table at `key`."""
    for part in key:
        if isinstance(part, str):
            kind = _inner_type(keys_of(kind)[part].annotation)
    return kind


def _inner_type(annotation: Any) -> type:
    """The type in `Type`, `tuple[Type, ...]` or `Type | None`."""
    while not dataclasses.is_dataclass(annotation):
        annotation = get_args(annotation)[0]
    assert isinstance(annotation, type)
    return annotation


def _shown(value: object) -> str:
    """A value by its TOML type and, if it is short, as it is."""
    if isinstance(value, bool):
        return f"{value}".lower()
    if isinstance(value, (int, float)):
        return f"the number {value}" if abs(value) < 10**20 else "a number"
    if isinstance(value, str):
        return repr(value) if len(value) < 40 else "a string"
    if isinstance(value, list):
        return "an array"
    return "a table" if isinstance(value, dict) else "a date or time"
