"""Images of one's own in place of a toolchain's bases: FATWHEEL_BASES="3.11=image,3.13=image"."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ..errors import UsageError

VARIABLE = "FATWHEEL_BASES"

_ITEM = re.compile(r"(\d+\.\d+)=([\w./:@-]+)", re.ASCII)


def named_bases(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a Python, the image on the engine that FATWHEEL_BASES names; mostly empty.

    Raises UsageError where the variable cannot be read.
    """
    text = (os.environ if variables is None else variables).get(VARIABLE, "").strip()
    named: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _ITEM.fullmatch(item)
        if match is None or match[1] in named:
            raise UsageError(
                f"{item!r} names no base image" if match is None else f"{match[1]} is named twice",
                where=VARIABLE,
                hint=f"it looks like {VARIABLE}=3.11=my-base:1,3.13=other-base",
            )
        named[match[1]] = match[2]
    return named
