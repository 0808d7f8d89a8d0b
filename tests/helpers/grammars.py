"""Which values of a file's schema may be anything."""

from __future__ import annotations

import dataclasses
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from fatwheel.arch import Arch


def without_grammar(table: type) -> list[str]:
    """The fields, by class and name, of texts and numbers without a kind, and of lists without
    end; also those of all tables in it. What no file says does not count."""
    found: list[str] = []
    for name, hint in _read(table).items():
        found += [f"{table.__name__}.{name}: {what}" for what in _free(hint)]
    for inner in _tables(table):
        found += without_grammar(inner)
    return found


def _read(table: type) -> dict[str, Any]:
    """The types of the fields that a file has."""
    hints = get_type_hints(table, include_extras=True)
    return {
        one.name: hints[one.name]
        for one in dataclasses.fields(table)
        if not FieldInfo.from_annotation(hints[one.name]).exclude
    }


def _free(hint: Any) -> list[str]:
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated and arguments[0] in (str, int, float, bool, Arch):
        return []
    if kind is Annotated and get_origin(arguments[0]) in (list, tuple, dict):
        bounded = any(isinstance(one, FieldInfo) and one.metadata for one in arguments[1:])
        bounded |= get_origin(arguments[0]) is tuple and Ellipsis not in get_args(arguments[0])
        inner = [what for part in get_args(arguments[0]) for what in _free(part)]
        return inner if bounded else ["a list without end", *inner]
    if kind is Annotated:
        return _free(arguments[0])
    if kind in (Union, types.UnionType):
        return [what for part in arguments for what in _free(part)]
    if kind is Literal or hint in (type(None), Ellipsis):
        return []
    if kind is tuple and Ellipsis not in arguments:
        return [what for part in arguments for what in _free(part)]
    if dataclasses.is_dataclass(hint):
        return []
    return [f"{hint} may be anything"]


def _tables(table: type) -> set[type]:
    found: set[type] = set()
    left = [*_read(table).values()]
    while left:
        hint = left.pop()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint is not Arch:
            found.add(hint)
        left += [part for part in get_args(hint) if get_origin(hint) is not Literal]
    return found
