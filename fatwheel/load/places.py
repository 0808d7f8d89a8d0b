"""Where in a TOML text each key stands: tomllib gives values without their lines.

Grammar: TOML 1.0 (toml.io/en/v1.0.0). The text must already have been accepted by a TOML
parser; so this scanner only finds its way and checks nothing but how deep keys are.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left

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


class Places:
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
