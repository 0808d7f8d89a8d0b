"""The rooms of docs/architecture.md, and which way they depend, held against the code."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fatwheel"
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Run inside build containers, where there is a Python and nothing else.
STANDARD_LIBRARY_ONLY = (
    "arch", "branch", "build", "errors", "events", "fatbin", "files", "mapped", "model",
    "permissions", "provision", "store", "vault", "wheels",
)  # fmt: skip
# Rules that a change of the table must not loosen.
KNOWS_ONLY = {
    "errors": set(),
    "arch": {"errors"},
    "fatbin": {"errors", "arch"},
    "wheels": {"errors", "arch", "files", "mapped"},
    "branch": {"files", "vault", "store"},
    "build": {"errors", "arch", "model", "permissions", "store", "branch", "fatbin"},
}
KNOW_DOCKER = (
    "containers.client", "containers.running", "containers.reaping", "images.foundation",
)  # fmt: skip
WRITE_TO_STREAMS = ("ui.console", "build.shard", "build.shim")  # the last two: a worker's protocol


@dataclass(frozen=True)
class Module:
    """A module of the package, by its name without `fatwheel.`."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]

    @property
    def package(self) -> tuple[str, ...]:
        parts = ("fatwheel", *filter(None, self.name.split(".")))
        return parts if self.path.name == "__init__.py" else parts[:-1]


def read_modules() -> Iterator[Module]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        yield Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))


EVERY = list(read_modules())
# Without the packages' own files that hold a docstring and nothing else.
MODULES = [module for module in EVERY if len(module.tree.body) > 1 and module.name]
NAMES = {module.name for module in EVERY}

each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def imports(module: Module) -> Iterator[str]:
    """Every imported module, anywhere in the file, by its whole name."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            kept = len(module.package) - node.level + 1
            start = module.package[:kept] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner.removeprefix("fatwheel.") in NAMES else base


def siblings(module: Module) -> set[str]:
    """The modules of this package that a module imports; `fatwheel` itself is its version."""
    found = {name for name in imports(module) if name.startswith("fatwheel.")}
    return {name.removeprefix("fatwheel.") for name in found}


def strangers(module: Module) -> set[str]:
    """The libraries outside the standard one that a module imports, by their top names."""
    tops = {name.partition(".")[0] for name in imports(module)}
    return tops - sys.stdlib_module_names - {"fatwheel"}


def within(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


# -- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    modules: dict[str, bool]  # name → whether it is marked *
    knows: tuple[str, ...]


def read_table() -> list[Row]:
    table = DOCUMENT.partition("| modules |")[2].partition("\n\n")[0]
    rows = []
    for line in table.splitlines()[2:]:
        modules, _, knows = line.strip("|").split("|")
        marked = re.findall(r"`([\w.]+)`( \*)?", modules)
        rows.append(
            Row({name: bool(star) for name, star in marked}, tuple(re.findall(r"`(.+?)`", knows)))
        )
    return rows


TABLE = read_table()


def row_of(module: Module) -> Row:
    found = [row for row in TABLE if module.name in row.modules]
    assert found, f"docs/architecture.md does not name {module.name} in its table of rooms"
    return found[0]


def test_the_table_names_exactly_the_modules_that_exist() -> None:
    named = [name for row in TABLE for name in row.modules]
    assert sorted(named) == sorted(module.name for module in MODULES)


def test_dependencies_point_up_the_table() -> None:
    above: set[str] = set()
    for row in TABLE:
        for name in row.knows:
            assert within(name, above) or any(within(other, {name}) for other in above), (
                f"{', '.join(row.modules)} may know {name}, which is not further up in the table"
            )
        above |= set(row.modules)


@each_module
def test_a_module_imports_only_what_its_room_may_know(module: Module) -> None:
    row = row_of(module)
    allowed = set(row.knows) | set(row.modules) | {module.room}
    extra = sorted(name for name in siblings(module) if not within(name, allowed))
    assert not extra, f"{module.name} imports {extra}; its room may know {row.knows}"


@each_module
def test_the_core_imports_the_standard_library_only(module: Module) -> None:
    starred = row_of(module).modules[module.name]
    if module.room in STANDARD_LIBRARY_ONLY:
        assert starred, f"docs/architecture.md should mark {module.name} with *"
    if starred:
        assert not strangers(module), f"{module.name} must do with the standard library"
        assert "tomllib" not in set(imports(module)), "Python 3.10 has no tomllib"


@each_module
def test_the_core_knows_little(module: Module) -> None:
    if module.room in KNOWS_ONLY:
        allowed = KNOWS_ONLY[module.room] | {module.room}
        extra = {name for name in siblings(module) if not within(name, allowed)}
        assert not extra, f"{module.name} must not know {sorted(extra)}"


# -- habits --------------------------------------------------------------------------------------


@each_module
def test_only_docker_s_own_modules_know_docker(module: Module) -> None:
    assert module.name in KNOW_DOCKER or "docker" not in strangers(module)


@each_module
def test_only_ui_knows_rich(module: Module) -> None:
    assert module.room == "ui" or "rich" not in strangers(module)


@each_module
def test_only_ui_prints(module: Module) -> None:
    for node in ast.walk(module.tree):
        where = f"{module.path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{where} prints"
        if isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr"):
            to_sys = isinstance(node.value, ast.Name) and node.value.id == "sys"
            assert not to_sys or module.name in WRITE_TO_STREAMS, f"{where} writes to a stream"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests" / "unit").glob("test_*.py")), ids=lambda path: path.stem
)
def test_a_unit_test_is_about_a_module(path: Path) -> None:
    """Named after it, `test_store.py`, or with its package before it: `test_fatbin_elf.py`,
    `test_wheel_name.py`. Data has tests too."""
    subjects = {"architecture", "tasks", "kernels", "toolchains"}
    for name in NAMES:
        package, _, last = name.rpartition(".")
        subjects |= {last, f"{package}_{last}", f"{package.removesuffix('s')}_{last}"}
    subject = path.stem.removeprefix("test_")
    assert subject in subjects, f"no module of fatwheel is called {subject}"


def test_every_package_is_installed() -> None:
    packages = {".".join(module.package) for module in EVERY if module.path.stem == "__init__"}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == packages


def test_every_library_in_use_is_declared() -> None:
    declared = {
        canonicalize_name(Requirement(text).name) for text in PYPROJECT["project"]["dependencies"]
    }
    sources = importlib.metadata.packages_distributions()
    undeclared = {
        f"{module.name} imports {top}"
        for module in MODULES
        for top in strangers(module)
        if not {canonicalize_name(name) for name in sources.get(top, [top])} & declared
    }
    assert not undeclared, "pyproject.toml does not name what is imported"
