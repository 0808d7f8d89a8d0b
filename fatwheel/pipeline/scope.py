"""The scope of a build: which entries of the store it may read and write.

What runs in a build decides what it writes: the project's own code, and in containers also the
image in which compilers run. So slices, host objects and all that is known of them belong to the
project and to the place where they were made, and neither another project nor another image can
put anything where this one reads. Finished wheels have no scope: the build itself keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..config.recipe import Recipe
from ..worker.context import digest

# Raised when slices, host objects, records of texts, or keys come out differently than before:
# tests/unit/pipeline/test_scope.py notices.
FORMAT = 4


def scope_of(recipe: Recipe, place: Sequence[Any], *, anywhere: bool = False) -> str:
    """That of a project whose compilers run in a place (see `Workplace.scope`).

    anywhere: of what machines share, on which a folder lies here or there. Such a project goes by
    its name and version alone.
    """
    return digest("scope", FORMAT, _project(recipe, anywhere), *place)


def _project(recipe: Recipe, anywhere: bool) -> dict[str, Any]:
    """By what a recipe decides which code runs."""
    return {
        "project": recipe.project,
        "version": recipe.version,
        "source": _origin(recipe, anywhere),
        "subdirectory": recipe.subdirectory,
        "environment": recipe.environment,
        "stub_commands": recipe.stub_commands,
        **({"build": [one.sha256 for one in recipe.build]} if recipe.build else {}),
        **({"config_settings": recipe.config_settings} if recipe.config_settings else {}),
        **({"pretend": recipe.pretend} if recipe.pretend else {}),
        **({"flags": [asdict(one) for one in recipe.flags]} if recipe.flags else {}),
    }


def _origin(recipe: Recipe, anywhere: bool) -> list[str]:
    """The source. Who changes a folder again and again finds what did not change."""
    source, folder = recipe.source, recipe.source_folder
    patches = [f"{one.file} {one.sha256}" for one in source.patches]
    if source.package:
        return ["sdist", source.package.sha256, *patches]
    if source.checkout:
        return ["checkout", "" if anywhere else str(source.path)]
    if folder:
        return ["folder", "" if anywhere else str(folder)]
    return ["pinned", source.sha256, *patches]
