"""Captures a target on an engine, in a folder of the build's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..engines.base import Build, Capture, Limits, Workplace, new_logs
from ..events import Emit, step
from ..model import Front, Recipe, Target
from ..storage.cache import VARIABLE, cache_folder, downloads_folder
from ..storage.files import disk_error
from ..storage.stores import Stores
from ..storage.workfolder import work_folder
from ..worker.upstream import Project
from .scope import scope_of
from .source import unpack

C = TypeVar("C", bound=Capture)


@contextmanager
def captured(
    target: Target,
    fronts: tuple[Front, ...],
    workplace: Workplace[C],
    limits: Limits,
    stores: Stores,
    emit: Emit,
) -> Iterator[tuple[Build, C]]:
    """A captured target; its work folder goes when the block ends.

    Raises what capturing does.
    """
    logs = _log_folder(target)
    with work_folder() as work:
        build = Build(
            target=target,
            fronts=fronts,
            unpack=lambda folder: unpacked(target.recipe, folder, emit),
            stores=stores,
            scope=scope_of(target.recipe, workplace.scope),
            limits=limits,
            work=work,
            logs=logs,
        )
        with workplace.capture(build, emit) as capture:
            yield build, capture


def unpacked(recipe: Recipe, folder: Path, emit: Emit) -> Project:
    """The recipe's source in a folder, fetched first where it is an sdist."""
    with step(emit, "source", f"{recipe.project} {recipe.version}"):
        return unpack(recipe, downloads_folder(), folder, emit)


def _log_folder(target: Target) -> Path:
    """A new folder for what the workers of a target's build say."""
    parent = cache_folder() / "logs"
    recipe = target.recipe
    try:
        return new_logs(parent, f"{recipe.project}-{recipe.version}-{target.python}")
    except OSError as error:
        raise disk_error(error, "keep logs", parent, f"{VARIABLE}=FOLDER") from error
