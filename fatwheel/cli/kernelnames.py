"""Names of kernels, as people read them.

A compiler encodes a C++ function's namespaces, template arguments and parameters in one word, as
the Itanium C++ ABI says: `_ZN2at5scaleIfEEvPT_i` is `at::scale<float>(float*, int)`. Device code
has such names on Windows, too.

Names come from files of strangers, and parts of a name may refer to earlier parts: two hundred
characters can stand for gigabytes. So there are limits, far above what compilers write. A name
beyond them is shown as it is, and so is every name on Python 3.10, for which there is no library.

Two facts belong to the whole process and are kept here: whether its one command was given
--mangled, and how long names have taken so far. Names are written from several threads, and by
errors and notes that know nothing of a command's options.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 240  # characters of a name in a message

_MANGLED = re.compile(r"(?<![A-Za-z0-9_$])_Z[A-Za-z0-9_$.]*[A-Za-z0-9_$]")
_ANGLES = re.compile(r"(<|(?<!-)>)")

# The names of 24,600 kernels, of torch 2.11 and xformers, have at most 2,301 characters, stand for
# at most 17,550, are nested less than 32 deep and expand one pack of arguments. With these bounds
# the slowest name that was found takes two seconds.
_MOST_MANGLED = 1 << 12  # characters
_MOST_READABLE = 1 << 15  # characters
_MOST_NESTED = 48
_MOST_PACKS = 8
_MOST_SECONDS = 60.0  # for all names together; torch's take ten

_DEEPEST = 8  # template arguments within so many others are the first to be left out

_mangled = False  # see `names_shown`
_seconds = 0.0  # spent on names so far


@contextmanager
def names_shown(mangled: bool) -> Iterator[None]:
    """How names are shown meanwhile: mangled, as compilers write them, or as people read them."""
    global _mangled
    before, _mangled = _mangled, mangled
    try:
        yield
    finally:
        _mangled = before


def readable(words: str, longest: int | None = LONGEST) -> str:
    """Words with the kernels' names in them as people read them, none longer than `longest`."""
    if _mangled or "_Z" not in words:
        return words
    return _MANGLED.sub(lambda found: _readable_name(found[0], longest), words)


def fitted(line: str, width: int) -> str:
    """A line with a name in it that is as short as it must be for the line to fit."""
    return readable(line, max(width - len(_MANGLED.sub("", line)), 1))


def _readable_name(name: str, longest: int | None) -> str:
    global _seconds
    begun = time.monotonic()
    if len(name) > _MOST_MANGLED or name.count("Dp") > _MOST_PACKS or _seconds > _MOST_SECONDS:
        return name
    try:
        import demangle

        limits = demangle.Limits(max_depth=_MOST_NESTED, max_output=_MOST_READABLE)
        found = demangle.demangle_strict(name, language="itanium", style="gnu", limits=limits)
    except Exception:  # not a mangled name; or a bug of the library, which must not hide a message
        return name
    finally:
        _seconds += time.monotonic() - begun
    found = found.removeprefix("void ")  # which is what all kernels return
    return found if longest is None else _shortened(found, longest)


def _shortened(name: str, longest: int) -> str:
    """A name without its parameters, and without as few template arguments as possible, the
    innermost first."""
    if len(name) <= longest:
        return name
    name = _without_parameters(name)
    for depth in range(_DEEPEST, 0, -1):
        shorter = _outline(name, depth)
        if len(shorter) <= longest:
            return shorter
    return shorter[: max(longest - 3, 0)] + "..."


def _without_parameters(name: str) -> str:
    """`f(...)` of `f(float*, int)`."""
    opened = 0
    for place in range(len(name) - 1 if name.endswith(")") else -1, -1, -1):
        opened += {")": 1, "(": -1}.get(name[place], 0)
        if not opened:
            return f"{name[:place]}(...)"
    return name


def _outline(name: str, depth: int) -> str:
    """A name without what is in more than `depth` pairs of angle brackets."""
    kept, level = [], 0
    for part in _ANGLES.split(name):
        if part == ">":
            level = max(level - 1, 0)
        if level <= depth:
            kept.append(part)
        if part == "<":
            level += 1
            if level == depth + 1:
                kept.append("...")
    return "".join(kept)
