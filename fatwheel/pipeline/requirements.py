"""What a project's build needs beside the toolchain: `[build-system] requires`, and the recipe's
`requires`. Each must be in the toolchain, or be pinned by the recipe (`[[build]]`).

Nothing is installed that nobody pinned, so a requirement without a pin ends the build before it
begins. `invoke lock --kernel NAME` writes the pins, with all that they need in turn.

Formats: PEP 518 (`[build-system]`), PEP 508 (requirements and markers).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.markers import (
    UndefinedComparison,
    UndefinedEnvironmentName,
    default_environment,
)
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..config.parts import fits
from ..config.pinned import Package
from ..config.recipe import Recipe, Target
from ..config.toolchain import Toolchain
from ..errors import ConfigError, ToolchainError, UpstreamError
from ..events import Emit
from ..machine import this_platform
from ..storage.documents import TomlError, read_toml
from ..text import clean
from ..toolchain.unpack import InstallScheme, ensure_unpacked, folder_of, link_into

FOLDER = "requirements"  # beside the source, in the folder that the build gets
MOST = 200  # requirements of a project
# What back ends ask for when they are asked (PEP 517, get_requires_for_build_wheel).
_ASKED_FOR = {
    "scikit_build_core": ("cmake", "ninja"),
    "mesonpy": ("ninja",),
    "maturin": ("maturin",),
}
# Where pyproject.toml has indexes of a project's own: [[tool.uv.index]].
_NAMES_INDEXES = (("uv", "index"), ("poetry", "source"), ("pdm", "source"))
_PYTHON = "/fatwheel/python"  # stands for the Python that runs scripts, until it is known


# -- what is needed --------------------------------------------------------------------------------


def requirements_of(root: Path, recipe: Recipe) -> tuple[Requirement, ...]:
    """What a project's pyproject.toml and the recipe say that the build needs.

    root: the folder with pyproject.toml. Raises UpstreamError for what is no requirement.
    """
    system = _build_system(root)
    said = system.get("requires", [])
    where = f"{root.name}/pyproject.toml"
    if not isinstance(said, list) or len(said) > MOST:
        raise UpstreamError("requires is not a list of requirements", where=where)
    module = str(system.get("build-backend", "")).partition(".")[0]
    words = [*map(str, said), *_ASKED_FOR.get(module, ()), *recipe.requires]
    try:
        return tuple(Requirement(word) for word in dict.fromkeys(words))
    except InvalidRequirement as error:
        what = clean(str(error).splitlines()[0])[:200]
        raise UpstreamError(f"a requirement is invalid: {what}", where=where) from error


def indexes_of(root: Path) -> tuple[str, ...]:
    """The package indexes that a project names for uv, Poetry or PDM, for people: nobody is asked
    because a project says so."""
    tools = _table(root, "tool")
    tables = [(tools.get(tool), name) for tool, name in _NAMES_INDEXES]
    listed = [table.get(name) for table, name in tables if isinstance(table, dict)]
    named = [one for each in listed if isinstance(each, list) for one in each[:MOST]]
    urls = [str(one["url"]) for one in named if isinstance(one, dict) and "url" in one]
    return tuple(" ".join(clean(url[:200]).split()) for url in dict.fromkeys(urls))


def _build_system(root: Path) -> Mapping[str, object]:
    return _table(root, "build-system")


def _table(root: Path, name: str) -> Mapping[str, object]:
    file = root / "pyproject.toml"
    try:
        table = read_toml(file)[1].get(name, {}) if file.is_file() else {}
    except (TomlError, OSError) as error:
        raise UpstreamError(f"unreadable: {error}", where=f"{root.name}/pyproject.toml") from error
    return table if isinstance(table, dict) else {}


def for_target(
    requirements: Iterable[Requirement], python: str, platform: str
) -> tuple[Requirement, ...]:
    """Those that hold for a Python on a platform. Raises UpstreamError."""
    system, _, machine = platform.partition("-")
    windows = system == "win"
    environment: dict[str, str] = {
        **{name: str(value) for name, value in default_environment().items()},
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "win32" if windows else "linux",
        "platform_system": "Windows" if windows else "Linux",
        "os_name": "nt" if windows else "posix",
        "platform_machine": "AMD64" if windows else machine,
        "extra": "",
    }
    found = []
    for one in requirements:
        try:
            if one.marker is None or one.marker.evaluate(environment):
                found.append(one)
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            what = clean(f"{one}: {error}")[:300]
            raise UpstreamError(f"a requirement's marker says nothing: {what}") from error
    return tuple(found)


# -- what there is ---------------------------------------------------------------------------------


def fitting(build: Sequence[Package], python: str, platform: str) -> tuple[Package, ...]:
    """Of a recipe's pins those for a Python on a platform; of one package the file for this Python
    alone before one for several."""
    found: dict[str, Package] = {}
    for one in build:
        if fits(one.filename, python, platform):
            name = str(canonicalize_name(one.name))
            if name not in found or "-py3" in found[name].filename:
                found[name] = one
    return tuple(found.values())


@dataclass(frozen=True)
class UnmetRequirement:
    """A requirement that is not met, and the version that is there, or ''. is_fixed: whether that
    is part of what torch is built with, which no recipe replaces."""

    requirement: Requirement
    there: str
    is_fixed: bool

    def __str__(self) -> str:
        if not self.there:
            return str(self.requirement)
        return f"{self.requirement}, and there is {self.requirement.name} {self.there}"


def gaps(requirements: Iterable[Requirement], target: Target) -> tuple[UnmetRequirement, ...]:
    """The requirements of a target's project that toolchain and recipe do not meet."""
    there, fixed = packages_of(target.toolchain, target.python, target.torch)
    there |= {str(canonicalize_name(one.name)): one.version for one in target.recipe.build}
    found = []
    for one in for_target(requirements, target.python, target.toolchain.platform):
        name = str(canonicalize_name(one.name))
        version = there.get(name, "")
        if not version or not one.specifier.contains(Version(version), prereleases=True):
            found.append(UnmetRequirement(one, version, name in fixed))
    return tuple(found)


def packages_of(toolchain: Toolchain, python: str, torch: str) -> tuple[dict[str, str], set[str]]:
    """A toolchain's packages: version by name, and the names of those that torch needs or is."""
    tools = toolchain.only(python, torch)
    packages = [*tools.packages, *(one for build in tools.builds for one in build.packages)]
    versions = {str(canonicalize_name(one.name)): one.version for one in packages}
    fixed = {str(canonicalize_name(one.name)) for one in packages if one.role != "build"}
    return versions, fixed


def check_requirements(root: Path, target: Target) -> None:
    """Raise ToolchainError where a project's build would lack something, before it begins.

    Of what is installed on a machine nobody says what is there: its build finds out.
    """
    if target.toolchain.installed:
        return
    recipe, toolchain = target.recipe, target.toolchain
    _check_fixed(recipe, target)
    found = gaps(requirements_of(root, recipe), target)
    if conflicting := [gap for gap in found if gap.is_fixed]:
        raise ToolchainError(
            "the project's build requires other versions than the toolchain's torch goes with",
            where=f"{recipe.name}, toolchain {toolchain.name}",
            details=[clean(str(gap)) for gap in conflicting],
            hint="build with another torch (`invoke toolchains` lists them: --torch), or, if the "
            "project works with this one, change the requirement with a patch: docs/recipes.md",
        )
    if found:
        raise ToolchainError(
            "the project's build requires packages that neither the toolchain nor the recipe has",
            where=f"{recipe.name}, toolchain {toolchain.name}, Python {target.python}",
            details=[clean(str(gap)) for gap in found],
            hint=f"`invoke lock --kernel {recipe.name}` pins them in the recipe",
        )


def _check_fixed(recipe: Recipe, target: Target) -> None:
    """A recipe must not bring another torch, or what is built with it."""
    versions, fixed = packages_of(target.toolchain, target.python, target.torch)
    others = [
        f"{one.name} {one.version}, and the toolchain has {versions[name]}"
        for one in recipe.build
        if (name := str(canonicalize_name(one.name))) in fixed and one.version != versions[name]
    ]
    if others:
        raise ConfigError(
            "[[build]] pins packages that belong to the toolchain's torch",
            where=recipe.name,
            details=others,
            hint="remove them; --torch chooses another torch",
        )


# -- for the build to use --------------------------------------------------------------------------


def put_packages(packages: Sequence[Package], cache: Path, folder: Path, emit: Emit) -> None:
    """Packages in a new folder, for a build to use: modules in `site`, programs in `bin`.

    They are copies, because a build may write there. Raises what fetching and unpacking do.
    """
    ensure_unpacked(packages, cache, emit)
    with TemporaryDirectory(prefix=".requirements-", dir=cache) as name:
        made = Path(name)
        into = InstallScheme(Path(_PYTHON), made / "site", made, made / "bin", made)
        for package in packages:
            link_into(folder_of(package, cache), "include", into, this_platform())
        shutil.copytree(made, folder)
    for script in (folder / "bin").glob("*"):
        _start_by_path(script)
    _let_all_read(folder)


def _let_all_read(folder: Path) -> None:
    """In containers, builds run as another user."""
    for place, _, files in os.walk(folder):
        os.chmod(place, 0o755)
        for path in (os.path.join(place, file) for file in files):
            os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)


def _start_by_path(script: Path) -> None:
    """Let a script run in the Python that is first on PATH: the environment's, wherever it is."""
    data = script.read_bytes()
    start = f"#!{_PYTHON}\n".encode()
    if data.startswith(start):
        status = script.stat()
        script.write_bytes(b"#!/usr/bin/env python3\n" + data.removeprefix(start))
        os.utime(script, ns=(status.st_atime_ns, status.st_mtime_ns))
