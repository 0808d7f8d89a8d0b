"""Recipes and toolchains without files, for tests that only need their names and versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fatwheel.config.recipe import Recipe, SourcePin
from fatwheel.config.toolchain import Toolchain


def plain_recipe(place: Path, **changes: Any) -> Recipe:
    """demo 1.0, in a folder that is its source, too."""
    keys: dict[str, Any] = {
        "name": "demo", "project": "demo", "version": "1.0", "source": SourcePin(folder=str(place)),
        "archs": ("80",), "imports": (), "memory": 0, "seconds": 0, "epoch": 0, "folder": place,
        "digest": "",
    }  # fmt: skip
    return Recipe(**{**keys, **changes})


def plain_toolchain(**changes: Any) -> Toolchain:
    """tools: CUDA 13.0 for Linux, for torch 2.11.0 unless asked otherwise."""
    keys: dict[str, Any] = {
        "name": "tools", "platform": "linux-x86_64", "cuda": "13.0", "nvcc": "13.0.88", "archs": (),
        "gcc": (9, 15), "packages": (), "builds": (), "digest": "", "default_torch": "2.11.0",
    }  # fmt: skip
    return Toolchain(**{**keys, **changes})
