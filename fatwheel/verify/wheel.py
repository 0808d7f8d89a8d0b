"""Reads a finished wheel back: every unit must hold every image that was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..errors import VerifyError
from ..model import Front, Target
from .inspect import inspect_file


def check_wheel(path: Path, target: Target, fronts: Iterable[Front]) -> None:
    """Raises VerifyError where the wheel's name or its device code is not what was built.

    The archive itself (RECORD, names, paths) is checked by reading it: FormatError.
    """
    found = inspect_file(path)
    wanted = [code for front in fronts for code in front.codes]
    mistakes: list[str] = []
    with_code = [binary for binary in found["binaries"] if binary["containers"]]
    if not with_code:
        mistakes.append("no binary in it holds device code")
    for binary in with_code:
        counts: Counter[str] = Counter()
        for image in binary["images"]:
            counts[image["arch"]] += image["count"]
        mistakes += [
            f"{binary['path']}: {code} is in {counts[code]} of {binary['containers']} units"
            for code in wanted
            if counts[code] != binary["containers"]
        ]
    if not found["wheel"]["version"].startswith(f"{target.recipe.version}+"):
        mistakes.append(
            f"its version is {found['wheel']['version']}, the recipe's {target.recipe.version}"
        )
    if mistakes:
        raise VerifyError(
            "the finished wheel does not hold what was asked for",
            where=path.name,
            details=mistakes,
            hint=f"asked for: {', '.join(wanted)}",
        )
