"""The contracts between rooms (pyproject.toml, [tool.importlinter]), and what they rest on."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fatwheel.engines.registry import ENGINES

from ..helpers.schemas import schema_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = {one["id"]: one for one in PYPROJECT["tool"]["importlinter"]["contracts"]}
DECLARED = {
    canonicalize_name(Requirement(text).name)
    for text in (
        *PYPROJECT["project"]["dependencies"],
        *PYPROJECT["project"]["optional-dependencies"]["remote"],
        *PYPROJECT["project"]["optional-dependencies"]["dask"],
    )
}


def test_rooms_keep_their_contracts() -> None:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def imported() -> dict[str, set[str]]:
    """The libraries that each module of the package imports, by their top names."""
    found = {}
    for path in (ROOT / "fatwheel").rglob("*.py"):
        tops = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                tops.add((node.module or "").partition(".")[0])
        found[str(path.relative_to(ROOT))] = tops - sys.stdlib_module_names - {"fatwheel"}
    return found


def test_every_library_in_use_is_declared() -> None:
    sources = importlib.metadata.packages_distributions()
    undeclared = {
        f"{path} imports {top}"
        for path, tops in imported().items()
        for top in tops
        if not {canonicalize_name(name) for name in sources.get(top, [top])} & DECLARED
    }
    assert not undeclared, "pyproject.toml does not name what is imported"


def test_a_library_that_is_an_extra_is_used_in_one_module() -> None:
    """Where it is not installed, that module says so, and everything else works."""
    users = {path for path, tops in imported().items() if "obstore" in tops}
    assert users == {"fatwheel/sharing/remote.py"}


def test_the_contract_of_containers_forbids_every_library() -> None:
    tops = {top for found in imported().values() for top in found}
    missing = tops - set(CONTRACTS["standard-library"]["forbidden_modules"])
    assert not missing, "name them in the contract `standard-library` of pyproject.toml"


@pytest.mark.parametrize("source", CONTRACTS["standard-library"]["source_modules"])
def test_what_runs_in_containers_starts_without_libraries(source: str) -> None:
    """The contract sees imports; this sees that Python finds nothing else, either."""
    place = ROOT.joinpath(*source.split("."))
    paths = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    lines = ["import sys", f"sys.path.insert(0, {str(ROOT)!r})"]
    lines += [f"import {name.removesuffix('.__init__')}" for name in names]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "\n".join(lines)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


IN_CONTAINERS = ("compilers", "fatbin", "provision", "worker")


def resolving(path: Path) -> list[int]:
    """The lines on which a module follows links and mounts: Path.resolve, realpath of itself."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_itself = "__file__" in ast.unparse(node)
            if node.func.attr == "resolve" or (node.func.attr == "realpath" and of_itself):
                found.append(node.lineno)
    return found


def test_what_runs_in_containers_takes_its_own_paths_as_they_are() -> None:
    """A mounted folder of a Windows container may resolve to `\\ContainerMappedDirectories\\GUID`,
    which no program there can open (python/cpython#102440): os.path.abspath is what to use."""
    modules = [path for room in IN_CONTAINERS for path in (ROOT / "fatwheel" / room).rglob("*.py")]
    assert len(modules) > 30, "the rooms lie elsewhere"
    places = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (*modules, *(ROOT / "kernels").glob("*/src/setup.py"))
        for line in resolving(path)
    ]
    assert not places, "these paths are resolved inside of containers: use os.path.abspath"


@pytest.mark.parametrize("command", ["plan", "doctor", "setup", "toolchains"])
def test_schemas_name_the_engines_that_there_are(command: str) -> None:
    """docs/architecture.md says that these four have to be told of a new engine."""

    def enums(node: Any) -> Iterator[list[Any]]:
        if isinstance(node, dict):
            if "enum" in node:
                yield node["enum"]
            for value in node.values():
                yield from enums(value)

    of_engines = [found for found in enums(schema_of(command)) if "docker" in found]
    assert [sorted(found) for found in of_engines] == [sorted(ENGINES)]
