"""fatwheel.json: what went into a wheel, kept in its dist-info folder.

The same inputs give the same bytes: nothing of the machine, the user or the time is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import __version__
from .build.context import Context
from .build.preprocess import Texts, pass_of
from .build.slices import slice_key
from .model import Front, Target, Unit
from .postlink.record import SCHEMA
from .store import Store


def build_record(
    target: Target,
    context: Context,
    store: Store,
    units: Sequence[Unit],
    fronts: Sequence[Front],
    front_mode: str,
) -> dict[str, Any]:
    """The record of one wheel, ready for JSON."""
    texts = Texts(context, store)
    recipe, toolchain = target.recipe, target.toolchain
    return {
        "schema": SCHEMA,
        "fatwheel": __version__,
        "recipe": {
            "name": recipe.name,
            "project": recipe.project,
            "version": recipe.version,
            "source": recipe.source.package.sha256 if recipe.source.package else None,
            "digest": recipe.digest,
        },
        "toolchain": {
            "name": toolchain.name,
            "platform": toolchain.platform,
            "cuda": toolchain.cuda,
            "nvcc": toolchain.nvcc,
            "digest": toolchain.digest,
        },
        "python": target.python,
        "torch": target.torch,
        "archs": [str(request) for request in target.archs],
        "front": front_mode,
        "fronts": [
            {"virtual": front.virtual.compute, "codes": list(front.codes)} for front in fronts
        ],
        "units": [
            {"name": unit.name, "slices": _slices(unit, context, store, texts, fronts)}
            for unit in units
            if unit.kind == "cuda"
        ],
    }


def _slices(
    unit: Unit, context: Context, store: Store, texts: Texts, fronts: Sequence[Front]
) -> dict[str, str | None]:
    """Image name → sha256 of the slice's bytes."""
    found: dict[str, str | None] = {}
    for front in fronts:
        text = texts.recorded(unit, pass_of(front))
        for code in front.codes:
            key = text and slice_key(context, unit, front, code, text)
            found[code] = store.digest("slice", key) if key else None
    return found
