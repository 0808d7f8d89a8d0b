"""JSON documents compared field by field, each by its dotted name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_KEYS = ("name", "virtual", "ref", "uri", "path", "bom-ref")
_MOST = 200  # characters of a value


def differing_fields(one: Any, other: Any) -> Iterator[tuple[str, str | None, str | None]]:
    """Name, and both values, of every field that differs; None where it is not there."""
    mine, theirs = dict(_flat(one, "")), dict(_flat(other, ""))
    for name in dict.fromkeys((*mine, *theirs)):
        if mine.get(name) != theirs.get(name):
            old, new = _shown(name, mine), _shown(name, theirs)
            # Text that reads like a number is in quotes, or both would look the same.
            yield (name, old, new) if old != new else (name, mine.get(name), theirs.get(name))


def said(name: str, one: str | None, other: str | None) -> str:
    """`python: 3.11 became 3.12`."""
    old, new = ("nothing" if value is None else value for value in (one, other))
    return f"{name}: {old} became {new}"


def _flat(part: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every value that is no object, or no list of such, as JSON. Items of lists go by what names
    them, so that one more of them does not make all others differ."""
    if isinstance(part, dict) and (part or not place):
        for name, value in part.items():
            yield from _flat(value, f"{place}.{name}" if place else str(name))
    elif isinstance(part, list) and any(isinstance(item, (dict, list)) for item in part):
        for name, item in _named(part).items():
            yield from _flat(item, f"{place}[{name}]")
    else:
        yield place, json.dumps(part, ensure_ascii=False)


def _named(items: list[Any]) -> Mapping[str, Any]:
    for key in _KEYS:
        named = {
            item[key]: item
            for item in items
            if isinstance(item, dict) and isinstance(item.get(key), str)
        }
        if len(named) == len(items):
            return named
    return {str(index): item for index, item in enumerate(items)}


def _shown(name: str, fields: Mapping[str, str]) -> str | None:
    if name not in fields:
        return None
    value = fields[name]
    if value.startswith('"'):
        value = json.loads(value)
    return value if len(value) <= _MOST else f"{value[:_MOST]}…"
