"""Rebuilds a wheel from its own lock and compares the result: `invoke rebuild`.

Everything comes from the wheel's own lock: its pins, its recipe, its fronts; the checkout that
runs this lends the code, and sources that lie beside a recipe. A finished wheel is never taken
from the store, and nothing that is made gets there: the wheel may be anybody's.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..compare import compare_wheels
from ..compare.differences import Comparison
from ..config.load import load_recipe
from ..config.recipe import Patch, Recipe, Target
from ..config.sourcetree import patch_digest, tree_digest
from ..engines.registry import engine_for
from ..errors import FatwheelError, HashMismatchError, RebuildError, UsageError
from ..events import Emit, Note
from ..model import Host
from ..provenance.checks import check_pinned, check_registries, foreign, host_changes, publishers
from ..provenance.lock import target_of
from ..provenance.origin import Held, read_held
from ..shipped import recipe_folders, toolchain_folders
from ..storage.cache import Stores, cache_folder, store_folder, work_folder
from ..toolchain.fetch import check_hosts
from ..toolchain.homes import check_accepted
from .build import find_files, make, needed_files, publish
from .compile import Effort
from .consent import Agree, check_consent, is_own, refuse
from .plan import BuildPlan, PlannedWheel

SLICES, NEVER = "slices", "never"
_CHANGED = (
    "the lock in the wheel is not the one that its record names: it was changed after the build"
)
FROM_STORE = (SLICES, NEVER)


@dataclass(frozen=True)
class RebuildRequest:
    """What `invoke rebuild` was asked for; None means the default.

    from_store: 'slices', which the user's store may answer with, or 'never'. find: a folder in
    which pinned files may lie. out: where the rebuilt wheel is kept if it differs.
    """

    wheel: Path
    engine: str | None
    from_store: str
    find: Path | None
    effort: Effort
    out: Path


@dataclass(frozen=True)
class Rebuilt:
    """comparison: of the wheel with the rebuilt one. path: where that one is kept, if it is.

    slices: how many it has; compiled: how many of them were made now. causes: what was another
    this time, a line each.
    """

    comparison: Comparison
    path: Path | None
    slices: int
    compiled: int
    causes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "identical": self.comparison.identical,
            "kept": str(self.path) if self.path else None,
            "slices": self.slices,
            "compiled": self.compiled,
            "causes": list(self.causes),
            "comparison": self.comparison.to_json(),
        }


def rebuild(request: RebuildRequest, emit: Emit, agree: Agree = refuse) -> Rebuilt:
    """Build a wheel again. Raises a FatwheelError where that cannot be done.

    agree: is asked before what a wheel from elsewhere names is fetched and run.
    """
    if request.from_store not in FROM_STORE:
        raise UsageError(
            f"{request.from_store!r} is not a valid choice",
            where="--from-store",
            hint=f"valid: {', '.join(FROM_STORE)}",
        )
    held = read_held(request.wheel, *recipe_folders())
    check_pinned(held.lock, request.wheel)
    _check_sources(held)
    lock = foreign(held.lock, publishers(recipe_folders(), toolchain_folders()))
    target = _with_costs(target_of(lock, held.archs))
    engine = engine_for(target.toolchain, request.engine, foreign=not is_own(lock))
    if engine.uses_images:
        check_registries(lock, toolchain_folders())
    check_consent(lock, request.wheel, engine, agree)
    check_accepted(lock.toolchain.msvc, cache_folder())
    if _is_changed(held):
        emit(Note(f"{request.wheel.name} cannot be rebuilt identically: {_CHANGED}"))
    if request.find:
        find_files(target, engine, request.find, emit)
    if not engine.uses_images:  # else it depends on which of them there are
        check_hosts(needed_files(target, engine))
    with work_folder() as work:
        workplace = engine.prepare(target, emit)
        wheel = PlannedWheel(target, held.fronts, held.front_units)
        limits = request.effort.limits(workplace.capacity)
        plan = BuildPlan((wheel,), held.front, engine, request.effort, limits, out=work)
        stores, meet = _stores(request.from_store, work), partial(_tell_host, held, emit)
        made = make(wheel, plan, workplace, stores, meet, emit)
        path = made.path
        comparison = compare_wheels(request.wheel, path)
        kept = None
        if not comparison.identical:
            kept = publish(path, request.out, "keep the rebuilt wheel")
        causes = _causes(held, path)
    return Rebuilt(comparison, kept, made.facts.slices, made.compiled, causes)


def refusal(rebuilt: Rebuilt, wheel: Path) -> RebuildError:
    """The error to end with if the rebuilt wheel differs; the report has the details."""
    return RebuildError(
        "the rebuilt wheel differs",
        where=wheel.name,
        hint=f"the rebuilt wheel is kept: {rebuilt.path}",
    )


def _check_sources(held: Held) -> None:
    """What of the source lies in this checkout must be what the wheel was built from."""
    recipe = held.lock.recipe
    for patch in recipe.source.patches:
        _check_patch(patch, recipe)
    folder, locked = recipe.source_folder, recipe.source.sha256
    if folder is None:
        return
    name = recipe.name
    if not folder.is_dir():
        raise UsageError(
            f"the wheel was built from sources kept beside the recipe {name}, which are missing "
            "here",
            where=str(folder),
            hint="rebuild it with a checkout of fatwheel that has them",
        )
    found = tree_digest(folder)
    if found != locked:
        raise HashMismatchError(
            f"the sources of {name} are not those that the wheel was built from",
            where=str(folder),
            details=[f"locked: sha256 {locked}", f"here:   sha256 {found}"],
            hint="use the checkout of fatwheel that the wheel was built with",
        )


def _check_patch(patch: Patch, recipe: Recipe) -> None:
    path = recipe.folder / patch.file
    if not path.is_file():
        raise UsageError(
            f"the wheel was built with the patch {patch.file} of the recipe {recipe.name}, which "
            "is missing here",
            where=str(path),
            hint="rebuild it with a checkout of fatwheel that has it",
        )
    found = patch_digest(path)
    if found != patch.sha256:
        raise HashMismatchError(
            f"the patch {patch.file} of the recipe {recipe.name} is not the one that the wheel was "
            "built with",
            where=str(path),
            details=[f"locked: sha256 {patch.sha256}", f"here:   sha256 {found}"],
            hint="use the recipe as it was when the wheel was built",
        )


def _with_costs(target: Target) -> Target:
    """The target with what this checkout knows of its cost: memory and time are not locked."""
    with suppress(FatwheelError):
        known = load_recipe(target.recipe.name, *recipe_folders())
        recipe = replace(
            target.recipe, memory=known.memory, seconds=known.seconds, costs=known.costs
        )
        return replace(target, recipe=recipe)
    return target


def _stores(from_store: str, work: Path) -> Stores:
    """A store of this build's own, which goes with it: what a wheel from anywhere leaves in one is
    nobody else's. With SLICES, the user's is read besides."""
    return Stores(work / "store", store_folder() if from_store == SLICES else None)


def _tell_host(held: Held, emit: Emit, host: Host) -> None:
    """Say early, before hours of work, why the wheel will differ."""
    for change in host_changes(held.lock.host, host):
        emit(Note(f"host code may differ: {change}"))


def _causes(held: Held, path: Path) -> tuple[str, ...]:
    """Why the wheels differ: changes to the wheel, and to the machine or the image."""
    changed = [_CHANGED] if _is_changed(held) else []
    return (*changed, *host_changes(held.lock.host, read_held(path, *recipe_folders()).lock.host))


def _is_changed(held: Held) -> bool:
    """Whether the record names a different lock than the one beside it."""
    return held.record.lock != hashlib.sha256(held.lock_data).hexdigest()
