"""Reads JSON and TOML from untrusted sources, within limits. Standard library only, and tomli where
Python has no tomllib.

Whatever strangers may have written is read with this: locks, records, statements, SBOMs, answers
of registries. What it lets through can be walked through by recursion, compared, written again
and encoded without any of that failing.
"""

from __future__ import annotations

import json
import math
import re
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import FormatError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST = 16 << 20  # bytes; the largest wheel known has a statement of 2 MiB
DEEPEST = 40
MOST_VALUES = 1_000_000  # brackets and commas: an empty list has 2 bytes here and 56 in memory
_MOST_DIGITS = 60  # of a number; Python reads long ones in quadratic time, or not at all

# Half of a pair of surrogates, with which a text cannot be encoded. Pairs are found, too; what is
# found is looked at again.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_object(
    data: bytes, where: str, most: int = MOST, most_values: int = MOST_VALUES
) -> dict[str, Any]:
    """The JSON object that a file holds. most: bytes.

    FormatError where it is none, too large or too deep, or says a thing twice: of that, readers
    believe different halves.
    """
    found = read_value(data, where, most, most_values)
    if not isinstance(found, dict):
        raise FormatError("it is not one JSON object", where=where)
    return found


def read_value(data: bytes, where: str, most: int = MOST, most_values: int = MOST_VALUES) -> Any:
    """Any JSON value, within the same bounds. Raises FormatError as `read_object`."""
    if len(data) > most:
        raise FormatError(f"it has {len(data)} bytes; {most} are the most", where=where)
    if sum(map(data.count, (b",", b"[", b"{"))) > most_values:
        raise FormatError(f"it has more than {most_values} values", where=where)
    try:
        text = data.decode("utf-8")
        found = json.loads(
            text,
            object_pairs_hook=_each_once,
            parse_constant=_no_number,
            parse_int=_int,
            parse_float=_float,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it cannot be read as JSON: {error}", where=where) from error
    _check_depth(found, where)
    if _SURROGATE.search(text):
        _check_encodes(found, where)
    return found


def json_bytes(content: Any) -> bytes:
    """A document as it lies in a wheel or on a site: the same content gives the same bytes."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _each_once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:60]!r} appears twice")
        found[name] = value
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits; {_MOST_DIGITS} are the most")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:_MOST_DIGITS]} is too large")
    return number


def _check_depth(found: Any, where: str) -> None:
    """What is read without trouble may still be too deep for those who walk through it."""
    level = [found]
    for _ in range(DEEPEST):
        level = [value for part in level for value in _parts(part)]
        if not level:
            return
    raise FormatError(f"it is nested more than {DEEPEST} deep", where=where)


def _check_encodes(found: Any, where: str) -> None:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise FormatError("a text in it contains an unpaired surrogate", where=where) from error


def _parts(part: Any) -> Iterable[Any]:
    if isinstance(part, dict):
        return part.values()
    return part if isinstance(part, list) else ()


# -- TOML ------------------------------------------------------------------------------------------

MOST_TOML = 1 << 20  # bytes; the largest pyproject.toml known has 150 KB
# What the parser does for a dotted key grows with the square of its parts, and what it does for a
# key grows with the parts of its table: as many steps take a second.
_MOST_STEPS = 100_000_000


class TomlError(ValueError):
    """What is wrong, as `LINE: WHAT` or `LINE:COLUMN: WHAT`."""


def read_toml(file: Path) -> tuple[str, dict[str, Any]]:
    """A TOML file's text and values. Raises TomlError, and OSError where it cannot be read."""
    if stat.S_IFMT(file.stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise TomlError("1: it is a pipe, a socket or a device")  # which might never end
    with file.open("rb") as stream:
        data = stream.read(MOST_TOML + 1)
    if len(data) > MOST_TOML:
        raise TomlError(f"1: it has more than {MOST_TOML} bytes, the most that are read")
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
            raise TomlError(f"{number}: a key with too many parts")


def _syntax_mistake(message: str, text: str) -> str:
    """`LINE:COLUMN: MESSAGE`, from the parser's message."""
    if message.startswith("Exceeds the limit"):  # of sys.set_int_max_str_digits
        return "1: a number has too many digits"
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if match:
        return f"{match[2]}:{match[3]}: not TOML: {match[1][:200]}"
    last_line = text.rstrip("\n").count("\n") + 1
    return f"{last_line}: not TOML: {message[:200]}"
