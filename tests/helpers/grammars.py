"""Which values of a file's schema may be anything."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def without_grammar(model: type[BaseModel]) -> list[str]:
    """The fields, by class and name, of texts and numbers without a kind, and of lists without
    end; also those of all models in it."""
    found: list[str] = []
    for name, hint in get_type_hints(model, include_extras=True).items():
        if not name.startswith("model_"):
            found += [f"{model.__name__}.{name}: {what}" for what in _free(hint)]
    for inner in _models(model):
        found += without_grammar(inner)
    return found


def _free(hint: Any) -> list[str]:
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated and arguments[0] in (str, int, float):
        return []
    if kind is Annotated and get_origin(arguments[0]) in (list, tuple, dict):
        bounded = any(isinstance(one, FieldInfo) and one.metadata for one in arguments[1:])
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
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return []
    return [f"{hint} may be anything"]


def _models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = set()
    left = [*get_type_hints(model, include_extras=True).values()]
    while left:
        hint = left.pop()
        if isinstance(hint, type) and not get_args(hint) and issubclass(hint, BaseModel):
            found.add(hint)
        left += [part for part in get_args(hint) if get_origin(hint) is not Literal]
    return found
