"""JSON from anywhere: within bounds, and read in one way only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..errors import FormatError

MOST = 16 << 20  # bytes; the largest wheel known has a statement of 2 MiB
DEEPEST = 40


def read_object(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object that a file holds.

    FormatError where it is none, too large or too deep, or says a thing twice: of that, readers
    believe different halves.
    """
    if len(data) > MOST:
        raise FormatError(f"it has {len(data)} bytes; {MOST} are the most", where=where)
    try:
        found = json.loads(
            data.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it cannot be read as JSON: {error}", where=where) from error
    if not isinstance(found, dict):
        raise FormatError("it is not one JSON object", where=where)
    _check_depth(found, where)
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


def _check_depth(found: Any, where: str) -> None:
    """What is read without trouble may still be too deep for those who walk through it."""
    level = [found]
    for _ in range(DEEPEST):
        level = [value for part in level for value in _parts(part)]
        if not level:
            return
    raise FormatError(f"it is nested more than {DEEPEST} deep", where=where)


def _parts(part: Any) -> Iterable[Any]:
    if isinstance(part, dict):
        return part.values()
    return part if isinstance(part, list) else ()
