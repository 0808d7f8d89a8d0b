"""fatwheel.json: what went into a wheel, kept in its dist-info folder.

The same inputs give the same bytes: nothing of the machine, the user or the time is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import __version__
from .build.lookup import SliceDigests
from .errors import StoreError
from .fatbin.parity import shorten
from .model import Front, Target
from .postlink.record import SCHEMA
from .provenance.buildlock import recorded


def build_record(
    target: Target,
    lock_digest: str,
    slices: SliceDigests,
    fronts: Sequence[Front],
    front_mode: str,
) -> dict[str, Any]:
    """The record of one wheel, ready for JSON. lock_digest: sha256 of its lock's bytes.

    Raises StoreError where a slice is not known: the wheel has it, but the record could not tell.
    """
    _check_known(slices, fronts)
    return {
        "schema": SCHEMA,
        "fatwheel": __version__,
        "lock": lock_digest,
        **recorded(target.recipe, target.toolchain),
        "python": target.python,
        "torch": target.torch,
        "archs": [str(request) for request in target.archs],
        "front": front_mode,
        "fronts": [
            {"virtual": front.virtual.compute, "codes": list(front.codes)} for front in fronts
        ],
        "units": slices,
    }


def _check_known(slices: SliceDigests, fronts: Sequence[Front]) -> None:
    """What was stitched into the wheel may have left the store since: another build's eviction, or
    `invoke cache --clean`, or damage."""
    unknown = [
        f"{unit['name']} [{code}]"
        for unit in slices
        for front in fronts
        for code in front.codes
        if not unit["slices"].get(code)
    ]
    if unknown:
        raise StoreError(
            "slices left the store while the wheel was being made of them",
            details=shorten(unknown),
            hint="run the same command again: what is missing is compiled anew",
        )
