"""JSON from anywhere: within bounds, and read in one way only. Standard library only.

Whatever strangers may have written is read with this: locks, records, statements, SBOMs, answers
of registries. What it lets through can be walked through by recursion, compared, written again
and encoded without any of that failing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from .errors import FormatError

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
    """A document as it lies in a wheel: the same content gives the same bytes."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _each_once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:60]!r} is there twice")
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
        raise FormatError("a text in it is half a character", where=where) from error


def _parts(part: Any) -> Iterable[Any]:
    if isinstance(part, dict):
        return part.values()
    return part if isinstance(part, list) else ()
