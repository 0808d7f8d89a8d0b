"""Asks for compilers, Pythons, recipes, and what of a toolchain is in the cache."""

from __future__ import annotations

from pathlib import Path

from ..cache import chosen_folder
from ..errors import FatwheelError
from ..images.ingredients import FILES
from ..load import list_recipes, load_recipe
from ..model import Download, Package, Toolchain
from ..provision.hostcompiler import find_host_compiler
from ..toolchain.interpreters import find_interpreter
from ..workplaces.choose import DOCKER
from .facts import Load, Stock, Trouble
from .needs import files_for, packages_for, size_of
from .network import trouble_of

HOME = Path(__file__).resolve().parents[2]
KERNELS = HOME / "kernels"
TOOLCHAINS = HOME / "toolchains"


def ask_compiler(toolchain: Toolchain) -> str | Trouble:
    """The host compiler as one reads it, or why there is none."""
    try:
        compiler = find_host_compiler(toolchain.cuda, toolchain.gcc)
    except FatwheelError as error:
        return trouble_of(error)
    return f"g++ {compiler.version} ({compiler.path})"


def ask_pythons(toolchain: Toolchain) -> tuple[tuple[str, str | Trouble], ...]:
    """For each Python of the toolchain, where it is or why it cannot be used."""
    return tuple((python, _ask_python(python)) for python in toolchain.pythons)


def _ask_python(python: str) -> str | Trouble:
    try:
        return str(find_interpreter(python).executable)
    except FatwheelError as error:
        return Trouble(error.what, hint=error.hint or "")


def ask_loads() -> tuple[Load, ...]:
    """What the largest compiler call of each recipe takes; broken recipes are not its business."""
    loads = []
    for name in list_recipes(KERNELS):
        try:
            recipe = load_recipe(name, KERNELS)
        except FatwheelError:
            continue
        largest = max([recipe.memory, *(cost.memory for cost in recipe.costs)])
        loads.append(Load(name, largest))
    return tuple(loads)


def ask_stock(toolchain: Toolchain, python: str, engine: str) -> Stock:
    """What is in the cache of the files for one Python and engine, by name and size."""
    files = _files(toolchain, python, engine)
    missing = missing_files(toolchain, python, engine)
    return Stock(present=size_of(files) - size_of(missing), missing=size_of(missing))


def missing_files(toolchain: Toolchain, python: str, engine: str) -> tuple[Package | Download, ...]:
    """Those that are not where the engine's work looks for them; hashes are checked when used.

    A file that has no sha256 yet is missing.
    """
    cache = chosen_folder()
    is_here = _is_for_images if engine == DOCKER else _is_for_environments
    return tuple(
        file
        for file in _files(toolchain, python, engine)
        if not (file.locked and is_here(file, cache))
    )


def _files(toolchain: Toolchain, python: str, engine: str) -> tuple[Package | Download, ...]:
    return (files_for if engine == DOCKER else packages_for)(toolchain, python)


def _is_for_images(file: Package | Download, cache: Path) -> bool:
    return _has_size(cache / FILES / file.sha256 / file.filename, file.size)


def _is_for_environments(file: Package | Download, cache: Path) -> bool:
    """Downloaded, or unpacked already: that folder appears when it is complete."""
    if (cache / "packages" / file.sha256).is_dir():
        return True
    return _has_size(cache / "downloads" / file.sha256 / file.filename, file.size)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
