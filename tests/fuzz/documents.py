"""Changes of documents, JSON and TOML, that keep their form: so that damage gets behind the parser.

As in `mutators`, all choices come from the given source of chance.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

# What may stand in the place of any value.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**19, 10**59, 1.5, -0.0, 1e308, "", "a",
    " ", [], {}, [[]], [None], {"": None}, ["80"] * 200, ["80"] * 3000, {"a": {"b": {"c": []}}},
)  # fmt: skip
TEXTS = (
    "\n", "\r\n", "\0", '"', "'", "`id`", "$(id)", "${HOME}", "%PATH%", "\\", "/", "../", "..", ".",
    "/etc/passwd", "C:\\", "-x", "--", " ", ";id", "|id", "&", "#", "ü", "ſ", "٣", "\u202e",
    "\ud800", "\x1b[2J", "\nADD http://nowhere.invalid/x /", "@sha256:" + "0" * 64, "https://u:p@h/a.zip",
    "http://h/a.zip", "file:///etc/passwd", "a" * 300, "9" * 5000, "1." * 500 + "1", "a" * 20_000,
    "1!2", "2.0+cu1", "3.11", "80", "90a", "SHA256SUMS", "LD_PRELOAD", "x-1.0-py3-none-any.whl",
)  # fmt: skip
# In the place of a value of TOML.
TOKENS = (
    "0", "-1", "true", "nan", "inf", "-inf", "1e400", "0x" + "f" * 300, "0x" + "f" * 5000,
    "9" * 5000, "1979-05-27", "0001-01-01", "9999-12-31T23:59:59-23:59", "07:32:00",
    "''", "[]", "{}", "[[[]]]",
    "[" * 2000 + "]" * 2000, "{a = " * 500 + "1" + "}" * 500, '"80"', "1.5", "['80', '80']",
    "{" + ".".join("a" * 500) + " = 1}", "'''\na\n'''", '"\\u0000"', '"\\ud800"',
    "99999999999999999999", '["a", "b.c"]', '"a:b"', '["a/../.."]', '["."]', "a." * 5000 + "b",
)  # fmt: skip

_Holder = tuple[Any, Any]  # an object or a list, and a key or an index in it


def change_json(source: random.Random, data: bytes) -> bytes | None:
    """A document with some values changed, written as fatwheel writes it; None if it is none."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        places = list(_places(content))
        if places:
            source.choice(_CHANGES)(source, places)
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    if source.random() < 0.05:
        name, value = (
            source.choice(("a", "schema")),
            source.choice(("NaN", "1e999", "9" * 5000, "[" * 5000)),
        )
        text = text.replace("{", f'{{"{name}": {value},', 1)
    return text.encode()


def _places(part: Any) -> Iterator[_Holder]:
    if isinstance(part, (dict, list)):
        for key, value in list(part.items() if isinstance(part, dict) else enumerate(part)):
            yield part, key
            yield from _places(value)


def _value(source: random.Random, places: list[_Holder]) -> None:
    holder, key = source.choice(places)
    holder[key] = source.choice((*VALUES, *TEXTS))


def _text(source: random.Random, places: list[_Holder]) -> None:
    """A piece put into a text, or one of its characters changed."""
    texts = [(holder, key) for holder, key in places if isinstance(holder[key], str)]
    if texts:
        holder, key = source.choice(texts)
        holder[key] = _changed(source, holder[key])


def _changed(source: random.Random, text: str) -> str:
    at = source.randrange(len(text) + 1)
    kind = source.randrange(4)
    if kind == 0:
        return text[:at] + source.choice(TEXTS) + text[at:]
    if kind == 1:
        return text[:at] + source.choice("0123456789abcfzA.-_+") + text[at + 1 :]
    return text + source.choice(TEXTS) if kind == 2 else source.choice(TEXTS) + text


def _other(source: random.Random, places: list[_Holder]) -> None:
    """A value in the place of another that is called alike, or of any."""
    holder, key = source.choice(places)
    alike = [(h, k) for h, k in places if k == key] if source.random() < 0.7 else places
    other, its_key = source.choice(alike)
    holder[key] = json.loads(json.dumps(other[its_key]))


def _remove(source: random.Random, places: list[_Holder]) -> None:
    holder, key = source.choice(places)
    del holder[key]


def _repeat(source: random.Random, places: list[_Holder]) -> None:
    lists = [holder[key] for holder, key in places if isinstance(holder[key], list) and holder[key]]
    if lists:
        items = source.choice(lists)
        items.extend([source.choice(items)] * source.choice((1, 1, 2, 150)))


def _name(source: random.Random, places: list[_Holder]) -> None:
    objects = [(holder, key) for holder, key in places if isinstance(holder, dict)]
    if objects:
        holder, key = source.choice(objects)
        holder[_changed(source, key)] = holder.pop(key)


_CHANGES: tuple[Callable[[random.Random, list[_Holder]], None], ...] = (
    _value, _text, _text, _text, _other, _other, _remove, _repeat, _name,
)  # fmt: skip


def change_toml(source: random.Random, data: bytes) -> bytes:
    """A document with some of its lines changed."""
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        at = source.randrange(len(lines))
        kind = source.randrange(8)
        if kind < 3:
            lines[at] = _with_text(source, lines[at])
        elif kind < 5:
            lines[at] = re.sub(r"= .*", lambda _: f"= {source.choice(TOKENS)}", lines[at])
        elif kind == 5:
            lines[at] = source.choice(lines)
        elif kind == 6:
            del lines[at : at + source.choice((1, 1, 3))]
        else:
            lines[at:at] = lines[at : at + 5] * source.choice((1, 1, 30))
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "replace")


def _with_text(source: random.Random, line: str) -> str:
    """Another text between the first quotation marks of a line, as TOML writes it."""
    match = re.search(r'"([^"\\]*)"', line)
    if match is None:
        return _changed(source, line)
    text = json.dumps(_changed(source, match[1]), ensure_ascii=source.random() < 0.5)
    return line[: match.start()] + text + line[match.end() :]
