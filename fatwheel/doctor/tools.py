"""Asks for compilers, Pythons, recipes, and what of a toolchain is in the cache."""

from __future__ import annotations

from pathlib import Path

from ..cache import chosen_folder
from ..errors import FatwheelError
from ..load import list_recipes, load_recipe
from ..model import Download, Package, Toolchain
from ..provision.hostcompiler import find_host_compiler
from ..toolchain.interpreters import find_interpreter
from .facts import Load, Stock, Trouble
from .needs import files_for, size_of
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


def ask_stock(toolchain: Toolchain, python: str) -> Stock:
    """What is in the cache of the files for one Python, by name and size."""
    files = files_for(toolchain, python)
    missing = missing_files(toolchain, python)
    return Stock(present=size_of(files) - size_of(missing), missing=size_of(missing))


def missing_files(toolchain: Toolchain, python: str) -> tuple[Package | Download, ...]:
    """Those that are neither downloaded nor unpacked; their hashes are checked when they are used.

    A file that has no sha256 yet is missing.
    """
    cache = chosen_folder()
    return tuple(file for file in files_for(toolchain, python) if not _is_here(file, cache))


def _is_here(file: Package | Download, cache: Path) -> bool:
    if not file.locked:
        return False
    downloaded = cache / "downloads" / file.sha256 / file.filename
    try:
        if downloaded.stat().st_size == file.size:
            return True
    except OSError:
        pass
    return (cache / "packages" / file.sha256).is_dir()  # it appears when it is complete
