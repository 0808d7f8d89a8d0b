"""Sizes as people write them: `6GiB`, `512 MiB`, `1.5GB`. Standard library only."""

from __future__ import annotations

import re

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
        raise ValueError(f"{text!r} is nothing; valid: {VALID_SIZES}")
    return size
