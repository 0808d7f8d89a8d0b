"""Sizes, durations and foreign text, as people read them.

Sizes come in bytes, durations in seconds.
"""

from __future__ import annotations

import re

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def size(count: int) -> str:
    """`512 B`, `3.4 KiB`, `12.3 MiB`, `1.0 GiB`."""
    if count < 1024:
        return f"{count} B"
    value, power = count / 1024, 0
    while round(value, 1) >= 1024 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.1f} {_UNITS[power]}"


def duration(seconds: float) -> str:
    """`12.1 s`, `1 min 23 s`, `2 h 05 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def rough_duration(seconds: float) -> str:
    """An estimate, no more exact than it deserves: `under 1 min`, `about 2 h 05 min`."""
    if seconds < 60:
        return "under 1 min"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60:02} min"


def count(number: int, noun: str) -> str:
    """`1 unit`, `3 units`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clean(text: str) -> str:
    """Text from a wheel or a compiler without the control characters that steer a terminal.

    They are shown as escapes (`\\x1b`); tabs and line ends stay.
    """
    return "".join(_visible(char) for char in text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same of what others named, such as a file: on one line, so that nothing in it looks like
    a line of ours. Its line ends are shown as escapes, too."""
    return clean(text).replace("\n", "\\n")


def _visible(char: str) -> str:
    if char in "\t\n" or char.isprintable():
        return char
    return char.encode("unicode_escape").decode("ascii")


# -- sizes as people write them: `6GiB`, `512 MiB`, `1.5GB` ----------------------------------------


_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?) ?([KMGT]i?|k)?B")
_FACTORS = {
    None: 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}

VALID_SIZES = "a number and a unit: 6GiB, 1.2GiB, 800MiB, 6GB"


def parse_size(text: str) -> int:
    """A size in whole bytes; ValueError, with what would be valid, for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size; valid: {VALID_SIZES}")
    size = int(float(match[1]) * _FACTORS[match[2]])
    if size == 0:
        raise ValueError(f"{text!r} is zero; valid: {VALID_SIZES}")
    return size
