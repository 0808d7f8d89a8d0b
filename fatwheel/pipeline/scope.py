"""The scope of a build: which entries of the store it may read and write.

What runs in a build decides what it writes: the project's own code, and in containers also the
image in which compilers run. So slices, host objects and all that is known of them belong to the
project and to the place where they were made, and neither another project nor another image can
put anything where this one reads. Finished wheels have no scope: the build itself keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ..config.model import Recipe, Target, Toolchain
from ..worker.context import digest

# Raised when slices, host objects, records of texts, or keys come out differently than before:
# tests/unit/pipeline/test_scope.py notices.
FORMAT = 2


def scope_in_processes(recipe: Recipe) -> str:
    """That of a project whose compilers run on this machine; keys have the compilers."""
    return digest("scope", FORMAT, _project(recipe), "processes")


def scope_in_containers(target: Target, own: Toolchain | None, bases: Mapping[str, str]) -> str:
    """That of a target's project in images of its toolchain, whatever Python or torch it is for.

    own: what this checkout has under the toolchain's name. bases: for a Python, the image on which
    FATWHEEL_BASES has it built.
    """
    place = _toolchain(target, own)
    return digest("scope", FORMAT, _project(target.recipe), "containers", place, dict(bases))


def _project(recipe: Recipe) -> dict[str, Any]:
    """By what a recipe decides which code runs."""
    package, folder = recipe.source.package, recipe.source_folder
    origin = ["sdist", package.sha256] if package else ["folder", str(folder)]
    return {
        "project": recipe.project,
        "version": recipe.version,
        "source": origin,
        "subdirectory": recipe.subdirectory,
        "environment": recipe.environment,
        "stub_commands": recipe.stub_commands,
    }


def _toolchain(target: Target, own: Toolchain | None) -> dict[str, Any]:
    """What a toolchain's images are made of, but for Pythons' own packages and torch.

    A lock has no more of its toolchain than one build needs. Where that is just what this
    checkout pins, it is the same place; where it is anything else, all of it counts.
    """
    if own and target.tools == replace(target, toolchain=own).tools:
        return _compiling(own)
    return asdict(target.toolchain)


def _compiling(toolchain: Toolchain) -> dict[str, Any]:
    return {
        "bases": [asdict(base) for base in toolchain.bases],
        "cuda_files": [[one.name, one.version, one.sha256] for one in toolchain.cuda_files],
        "interpreters": [[one.python, one.download.sha256] for one in toolchain.interpreters],
        "msvc": asdict(toolchain.msvc) if toolchain.msvc else None,
        "packages": sorted(
            [one.name, one.version, one.sha256, one.role] for one in toolchain.packages
        ),
    }
