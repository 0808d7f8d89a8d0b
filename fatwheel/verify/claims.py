"""What the archs of fatwheel.json ask for, and how JSON documents are compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..arch import Arch, parse_arch
from ..errors import FatwheelError, FormatError


def asked_codes(archs: tuple[str, ...]) -> frozenset[str]:
    """The images that `80`, `89+ptx` and `ptx80` ask for. FormatError for what is no such text."""
    return frozenset(code for text in archs for code in _codes(text))


def _codes(text: str) -> tuple[str, ...]:
    if text.startswith("ptx"):
        return (_arch(text.removeprefix("ptx"), text).compute,)
    arch = _arch(text.removesuffix("+ptx"), text)
    return (arch.sm, arch.compute) if text.endswith("+ptx") else (arch.sm,)


def _arch(name: str, text: str) -> Arch:
    try:
        return parse_arch(name)
    except FatwheelError as error:
        raise FormatError(f"{text[:40]!r} is not an architecture") from error


# -- comparing values ------------------------------------------------------------------------------

# Two JSON values compared: where a found one is not the right one, in words.


_MOST_SHOWN = 80  # characters of a value


def differing(right: Any, found: Any, place: str = "") -> Iterator[str]:
    """A line for each part that differs from what is right: `archs.0: it says "90", not "80"`.

    Items of lists are told by their names where they have one.
    """
    if isinstance(right, dict) and isinstance(found, dict):
        yield from _in_objects(right, found, place)
    elif isinstance(right, list) and isinstance(found, list):
        yield from _in_lists(right, found, place)
    elif right != found or isinstance(right, bool) != isinstance(found, bool):
        yield f"{place}: it says {shown(found)}, not {shown(right)}"


def shown(value: Any) -> str:
    """A value from anywhere, as JSON, no longer than a line."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _in_objects(right: Mapping[str, Any], found: Mapping[str, Any], place: str) -> Iterator[str]:
    for key in sorted(right.keys() | found.keys()):
        where = f"{place}.{key[:_MOST_SHOWN]}" if place else key[:_MOST_SHOWN]
        if key not in found:
            yield f"{where}: it is not there"
        elif key not in right:
            yield f"{where}: it does not belong there"
        else:
            yield from differing(right[key], found[key], where)


def _in_lists(right: Sequence[Any], found: Sequence[Any], place: str) -> Iterator[str]:
    wanted, there = _by_text(right), _by_text(found)
    missing = [value for text, value in wanted.items() if text not in there]
    extra = [value for text, value in there.items() if text not in wanted]
    others = {_title(value): value for value in extra}
    for value in missing:
        title = _title(value)
        if title in others and isinstance(value, dict):
            yield from differing(value, others.pop(title), f"{place}, {title}")
        else:
            yield f"{place}: {title} is not there"
    for title in others:
        yield f"{place}: {title} does not belong there"
    if not missing and not extra and list(right) != list(found):
        yield f"{place}: it is in a different order, or lists something twice"


def _by_text(values: Sequence[Any]) -> dict[str, Any]:
    return {json.dumps(value, sort_keys=True): value for value in values}


def _title(value: Any) -> str:
    """What to call an item of a list: its name, or all of it."""
    name = value.get("name") if isinstance(value, dict) else None
    return name[:_MOST_SHOWN] if isinstance(name, str) else shown(value)
