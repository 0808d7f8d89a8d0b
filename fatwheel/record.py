"""fatwheel.json: what went into a wheel, kept in its dist-info folder.

The same inputs give the same bytes: nothing of the machine, the user or the time is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import __version__
from .build.lookup import SliceDigests
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
    """The record of one wheel, ready for JSON. lock_digest: sha256 of its lock's bytes."""
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
