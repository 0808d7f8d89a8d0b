"""Pins what a recipe's build needs: `invoke lock --kernel NAME`.

Requirements that the toolchains do not meet are resolved, with all that they need, for each of
their Pythons. The pins become the recipe's `[[build]]` tables; all else in its file stays as it is.
What is pinned already is preferred, and stays for the toolchains that were not asked for.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..config.load import RECIPE_FILE, load_recipe
from ..config.parts import Parts, PinnedFile, fits
from ..config.pinned import Package
from ..config.recipe import Recipe, Target
from ..config.toolchain import Cell
from ..errors import ConfigError, FetchError, ToolchainError
from ..events import Emit, Note, StepFinished, StepStarted
from ..pins.compare import FILLED, OPEN, RIGHT, PinState
from ..pins.lock import LockReport
from ..pins.session import Session, Work
from ..shipped import OWN_KERNELS, is_installed, recipe_folders, toolchain_folders
from ..storage import files
from ..storage.cache import cache_folder, work_folder
from ..text import clean
from ..toolchain.index import Index
from ..toolchain.pipconfig import RefusedError, read_pip_config
from .checkout import with_checkout
from .requirements import for_target, gaps, indexes_of, packages_of, requirements_of
from .resolve import ToolchainRequest, choose_cells
from .source import unpack

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Pins = dict[str, PinnedFile]  # by file name
_SHOWN = 3  # of a project's own indexes


def lock_recipe(
    kernel: str, requests: Sequence[ToolchainRequest], emit: Emit, *, write: bool
) -> LockReport:
    """Pin what a recipe's build needs beside the toolchains that are asked for.

    Where a request names no Python, for all that the toolchain has. Raises what fetching and
    unpacking the source do, ToolchainError where something requires another torch, FetchError
    where nothing satisfies the requirements, ConfigError where the recipe cannot be written.
    """
    recipe = with_checkout(load_recipe(kernel, *recipe_folders()))
    label = f"kernel {recipe.name}"
    started = time.monotonic()
    emit(StepStarted("lock", label))
    cells = tuple(dict.fromkeys(cell for request in requests for cell in _cells(request)))
    with work_folder() as folder:
        plain = replace(recipe, build=())
        root = unpack(plain, cache_folder(), folder, emit).root
        requirements, others = requirements_of(root, recipe), indexes_of(root)
    try:
        pins = _pinned(recipe, cells, requirements, emit)
    except FetchError as error:
        raise _with_indexes(error, others) from error
    file, written = recipe.folder / RECIPE_FILE, False
    before = {one.filename for one in recipe.build}
    if write and before != set(pins):
        file, written = _write(recipe, list(pins.values()), emit), True
        if gone := sorted(before - set(pins)):
            emit(Note(f"no longer pinned: {', '.join(gone)}"))
    emit(StepFinished("lock", time.monotonic() - started, label))
    known = {one.filename: one for one in recipe.build}
    findings = tuple(_finding(one, known.get(one.file), write) for one in pins.values())
    return LockReport(label, file, written, findings)


def _cells(request: ToolchainRequest) -> tuple[Cell, ...]:
    """All Pythons of a toolchain, unless some are named."""
    cells = choose_cells(request)
    if request.pythons or request.is_installed:
        return cells
    more = [
        Cell(cell.toolchain, python, cell.torch)
        for cell in cells
        for python in cell.toolchain.pythons
        if cell.torch in cell.toolchain.torches_for(python)
    ]
    return tuple(dict.fromkeys([*cells, *more]))


def _finding(pin: PinnedFile, old: Package | None, write: bool) -> PinState:
    values: dict[str, int | str] = {"size": pin.size, "sha256": pin.sha256}
    if old and (old.size, old.sha256) == (pin.size, pin.sha256):
        return PinState(("build",), pin.file, RIGHT, values, values)
    return PinState(("build",), pin.file, FILLED if write else OPEN, {}, values, "new")


# -- resolving -------------------------------------------------------------------------------------


def _pinned(
    recipe: Recipe, cells: Sequence[Cell], requirements: Sequence[Requirement], emit: Emit
) -> Pins:
    """The files that the cells lack, and those of a recipe that are pinned for others."""
    index = Index(read_pip_config())
    try:
        cache = cache_folder()
        session = Session(index, cache, cache / "downloads", emit, write=True)
        work = Work(session, Parts(*toolchain_folders()))
        found: Pins = {}
        for cell in cells:
            for pin in _pins_for(recipe, cell, requirements, work):
                found.setdefault(pin.file, pin)
        places = {(cell.python, cell.toolchain.platform) for cell in cells}
        left = [one for one in recipe.build if _is_left(one, found, places)]
        for cell in cells:
            left = _still_needed(left, cell, requirements, work)
        found |= {
            one.filename: PinnedFile(file=one.filename, size=one.size, sha256=one.sha256, url="")
            for one in left
        }
        return dict(sorted(found.items()))
    except RefusedError as error:
        raise FetchError(
            "what the build requires cannot be pinned", where=recipe.name, details=[str(error)]
        ) from error
    finally:
        index.close()


def _pins_for(
    recipe: Recipe, cell: Cell, requirements: Sequence[Requirement], work: Work
) -> Iterable[PinnedFile]:
    plain = replace(recipe, build=())
    target = Target(plain, cell.toolchain, cell.python, cell.torch, ())
    missing = gaps(requirements, target)
    if wrong := [gap for gap in missing if gap.is_fixed]:
        raise _conflict(recipe, cell, [str(gap) for gap in wrong])
    if not missing:
        return
    platform = cell.toolchain.platform
    there, fixed = packages_of(cell.toolchain, cell.python, cell.torch)
    preferred = [f"{name}=={version}" for name, version in there.items()]
    preferred += [f"{one.name}=={one.version}" for one in recipe.build if one.name not in there]
    wanted = [_bare(gap.requirement) for gap in missing]
    versions = work.session.resolver.resolve(wanted, cell.python, platform, preferred)
    others = {name: version for name, version in versions.items() if there.get(name) != version}
    if clashing := sorted(fixed & others.keys()):
        lines = [f"{name} {others[name]}, and there is {there[name]}" for name in clashing]
        raise _conflict(recipe, cell, [f"{', '.join(wanted)} need:", *lines])
    for name, version in others.items():
        work.pins.need(name, version, cell.python, platform)
        yield work.pins.file(name, version, cell.python, platform)


def _is_left(one: Package, found: Pins, places: Iterable[tuple[str, str]]) -> bool:
    """Whether no new pin takes a package's place, for a Python and platform that was asked for."""
    theirs = [file for file in found if _name_of(file) == canonicalize_name(one.name)]
    return one.filename not in found and not any(
        fits(one.filename, *place) and fits(file, *place) for place in places for file in theirs
    )


def _still_needed(
    pins: Sequence[Package], cell: Cell, requirements: Sequence[Requirement], work: Work
) -> list[Package]:
    """Of pins those that are for other places than a cell, or that a toolchain without them would
    need there, too."""
    python, platform = cell.python, cell.toolchain.platform
    here = [one for one in pins if fits(one.filename, python, platform)]
    if not here:
        return list(pins)
    _, fixed = packages_of(cell.toolchain, python, cell.torch)
    wanted = [
        _bare(one)
        for one in for_target(requirements, python, platform)
        if canonicalize_name(one.name) not in fixed
    ]
    pinned = [f"{one.name}=={one.version}" for one in pins]
    needed = work.session.resolver.resolve(wanted, python, platform, pinned) if wanted else {}
    return [one for one in pins if one not in here or canonicalize_name(one.name) in needed]


def _name_of(file: str) -> str:
    return str(canonicalize_name(file.partition("-")[0]))


def _bare(requirement: Requirement) -> str:
    """Without its marker, which holds."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _with_indexes(error: FetchError, others: Sequence[str]) -> FetchError:
    """others: the indexes that the project names."""
    if not others:
        return error
    more = (
        "pyproject.toml names indexes that are not asked; those that you trust, add to pip's "
        f"configuration (PIP_EXTRA_INDEX_URL): {', '.join(others[:_SHOWN])}"
    )
    hint = f"{error.hint}; {more}" if error.hint else more
    return FetchError(error.what, where=error.where, details=error.details, hint=hint)


def _conflict(recipe: Recipe, cell: Cell, details: Sequence[str]) -> ToolchainError:
    return ToolchainError(
        "the project's build requires other versions than the toolchain's torch goes with",
        where=f"{recipe.name}, toolchain {cell.toolchain.name}, Python {cell.python}",
        details=[clean(line) for line in details],
        hint="lock it with another torch (--torch), or, if the project works with this one, change "
        "the requirement with a patch: docs/recipes.md",
    )


# -- writing ---------------------------------------------------------------------------------------


def _write(recipe: Recipe, pins: Sequence[PinnedFile], emit: Emit) -> Path:
    """Write the recipe's file; for one that comes with fatwheel, that of a copy."""
    file = recipe.folder / RECIPE_FILE
    before = file.read_bytes()
    text = with_pins(before.decode("utf-8"), pins)
    try:
        if is_installed(recipe.folder):
            own = OWN_KERNELS / recipe.name
            shutil.copytree(recipe.folder, own, ignore=shutil.ignore_patterns("__pycache__"))
            emit(Note(f"{own}: a copy of the recipe that comes with fatwheel"))
            file = own / RECIPE_FILE
        elif file.read_bytes() != before:
            raise ConfigError("was changed meanwhile", where=str(file), hint="run it again")
        with files.replacing(file) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror}", where=str(file),
            hint="with --check, nothing is written",
        ) from error  # fmt: skip
    return file


def with_pins(text: str, pins: Iterable[PinnedFile]) -> str:
    """A recipe's text with these `[[build]]` tables in place of all that it has; ConfigError where
    it is written so that lines cannot be exchanged."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        if re.match(r"\s*\[", line):
            inside = bool(re.match(r"\s*\[\[\s*build\s*\]\]", line))
        if not inside:
            kept.append(line)
    new = "".join(kept).rstrip("\n") + "\n" + "".join(_table(pin) for pin in pins)
    before = tomllib.loads(text)
    try:
        after = tomllib.loads(new)
    except tomllib.TOMLDecodeError:
        after = {"": "nothing that the recipe means"}
    if {**before, "build": 0} != {**after, "build": 0}:
        raise ConfigError(
            "[[build]] is written in a way that cannot be exchanged automatically",
            hint="remove it from the recipe, and run the same command again",
        )
    return new


def _table(pin: PinnedFile) -> str:
    name, version, *_ = pin.file.split("-")
    values = {
        "name": str(canonicalize_name(name)), "version": version, "file": pin.file,
        "size": pin.size, "sha256": pin.sha256,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(["", "[[build]]", *lines, ""])
