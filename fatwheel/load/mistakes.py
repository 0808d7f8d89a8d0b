"""Says a file's mistakes in the user's words: where each stands, what is wrong, what is valid."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from .places import Key

Model = TypeVar("Model", bound=BaseModel)

_LONGEST = 40  # characters of a word that may have been meant for a known one
_WANTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
}


def schema_mistakes(model: type[Model], raw: Mapping[str, Any]) -> list[tuple[Key, str]]:
    """All places where `raw` breaks `model`, each with its message."""
    try:
        model.model_validate(raw)
    except ValidationError as error:
        return [_mistake(model, detail) for detail in error.errors(include_url=False)]
    return []


def _mistake(model: type[BaseModel], detail: Mapping[str, Any]) -> tuple[Key, str]:
    # pydantic marks what is wrong with a dictionary's key by a last '[key]'.
    key = tuple(part for part in detail["loc"] if part != "[key]")
    return key, _message(model, key, detail)


def _message(model: type[BaseModel], key: Key, detail: Mapping[str, Any]) -> str:
    kind = detail["type"]
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "extra_forbidden":
        return f"unknown key; {suggestion(str(key[-1]), _table(model, key[:-1]).model_fields)}"
    if kind == "missing":
        return f"missing: {_table(model, key[:-1]).model_fields[str(key[-1])].description}"
    if kind == "literal_error":
        return f"must be {detail['ctx']['expected']}, not {_shown(detail['input'])}"
    if kind == "string_type" and isinstance(detail["input"], (int, float)):
        return f"must be a string, not {_shown(detail['input'])}; put it in quotes"
    if kind == "too_long":
        return f"has more than {detail['ctx']['max_length']} items"
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}, not {_shown(detail['input'])}"
    return str(detail["msg"])


def suggestion(word: str, valid: Iterable[str]) -> str:
    """`did you mean 'memory'?`, or the list of valid words where none is near."""
    words = sorted(valid)
    near = get_close_matches(word[:_LONGEST], words, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"valid: {', '.join(words)}"


def _table(model: type[BaseModel], key: Key) -> type[BaseModel]:
    """The model of the table at `key`."""
    for part in key:
        if isinstance(part, str):
            model = _inner_model(model.model_fields[part].annotation)
    return model


def _inner_model(annotation: Any) -> type[BaseModel]:
    """The model in `Model`, `list[Model]` or `Model | None`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        assert issubclass(annotation, BaseModel)
        return annotation
    return _inner_model(get_args(annotation)[0])


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
