"""TOML from anywhere: within bounds, and what is wrong with it in words, with its line.

Standard library only, and tomli where Python has no tomllib.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST = 1 << 20  # bytes; the largest pyproject.toml known has 150 KB
# What the parser does for a dotted key grows with the square of its parts, and what it does for a
# key grows with the parts of its table: as many steps take a second.
_MOST_STEPS = 100_000_000


class TomlError(ValueError):
    """What is wrong, as `LINE: WHAT` or `LINE:COLUMN: WHAT`."""


def read_toml(file: Path) -> tuple[str, dict[str, Any]]:
    """A TOML file's text and values. Raises TomlError, and OSError where it cannot be read."""
    with file.open("rb") as stream:
        data = stream.read(MOST + 1)
    if len(data) > MOST:
        raise TomlError(f"1: it has more than {MOST} bytes, the most that are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TomlError(f"{line}: not UTF-8: byte {data[error.start]:#04x}") from error
    _check_keys(text)
    try:
        return text, tomllib.loads(text)
    except RecursionError as error:
        raise TomlError("1: nested too deeply") from error
    except ValueError as error:
        raise TomlError(_syntax_mistake(str(error), text)) from error


def _check_keys(text: str) -> None:
    """Every dot counts as one of a key's: what a quoted part holds is not looked into."""
    cost = table = 0
    for number, line in enumerate(text.split("\n"), 1):
        dots = line.count(".")
        if line.lstrip().startswith("["):
            table = dots
        cost += (dots + 1) * (dots + table)
        if cost > _MOST_STEPS:
            raise TomlError(f"{number}: keys of too many parts")


def _syntax_mistake(message: str, text: str) -> str:
    """`LINE:COLUMN: MESSAGE` from the parser's words."""
    if message.startswith("Exceeds the limit"):  # of sys.set_int_max_str_digits
        return "1: a number has too many digits"
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if match:
        return f"{match[2]}:{match[3]}: not TOML: {match[1][:200]}"
    last_line = text.rstrip("\n").count("\n") + 1
    return f"{last_line}: not TOML: {message[:200]}"
