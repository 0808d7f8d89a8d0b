"""Fills values into a toolchain's TOML, in place: comments, order and everything else stay.

Only lines are added, each behind the line of a key that the same table has. The result is read
back: it must mean what the file meant before, and the new values.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ConfigError
from ..load import dotted
from ..load.places import Key, Places
from .published import Values

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Behind which keys a new one belongs, the nearest first.
_BEHIND = {"size": ("url",), "sha256": ("size", "url"), "digest": ("reference",)}


class LockFile:
    """A toolchain's file, as it is now. written: whether it was changed here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = False
        self._bytes = path.read_bytes()

    def fill(self, key: Key, values: Values) -> None:
        """Write values that the table at `key` lacks.

        Raises ConfigError, and leaves the file as it is, where somebody else changed it meanwhile,
        where it is written so that lines cannot be added, and where it cannot be written.
        """
        # Not utf-8-sig: a byte order mark stays where it is.
        new = filled(self._bytes.decode("utf-8"), key, values)
        if new is None:
            raise ConfigError(
                "cannot be filled in: it is written so that no line can be added",
                where=str(self.path),
                details=[f"{dotted(key)}: {_words(values)}"],
                hint="write these values into it",
            )
        try:
            self._write(new.encode())
        except OSError as error:
            raise ConfigError(
                f"cannot be written: {error.strerror}",
                where=str(self.path),
                hint="with --check, nothing is written",
            ) from error

    def _write(self, new: bytes) -> None:
        if self.path.read_bytes() != self._bytes:
            raise ConfigError(
                "was changed meanwhile", where=str(self.path), hint="run the same command again"
            )
        with files.replacing(self.path) as stream:
            stream.write(new)
        self._bytes = new
        self.written = True


def filled(text: str, key: Key, values: Values) -> str | None:
    """The text with values in the table at `key`; None where it would not mean just that."""
    bare = text.removeprefix("\ufeff")
    wanted = tomllib.loads(bare)
    table = _at(wanted, key)
    lines = bare.split("\n")
    places = Places(bare)
    # From behind, so that the lines before stay where they are.
    for name, value in reversed(values.items()):
        number = places.line((*key, _anchor(name, table)))
        lines.insert(number, _line(name, value, lines[number - 1]))
    new = "\n".join(lines)
    table.update(values)
    try:
        same = tomllib.loads(new) == wanted
    except ValueError:
        return None
    return text[: len(text) - len(bare)] + new if same else None


def _anchor(name: str, table: Mapping[str, Any]) -> str:
    present = [key for key in _BEHIND[name] if key in table]
    return present[0] if present else _BEHIND[name][-1]


def _line(name: str, value: int | str, neighbour: str) -> str:
    """`size = 5`, indented and ended as the line before it."""
    indent = neighbour[: len(neighbour) - len(neighbour.lstrip())]
    end = "\r" if neighbour.endswith("\r") else ""
    return f"{indent}{name} = {json.dumps(value)}{end}"


def _at(value: Any, key: Key) -> dict[str, Any]:
    for part in key:
        value = value[part]
    assert isinstance(value, dict)
    return value


def _words(values: Values) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
