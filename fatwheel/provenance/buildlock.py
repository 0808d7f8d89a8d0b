"""The lock of a build: everything that it may use, by hash.

A lock is for one recipe, Python and torch; it does not depend on the architectures, nor on where
the build runs: processes and containers with the same tools have the same lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..arch import ArchRequest
from ..config.sourcetree import tree_digest
from ..model import Base, Download, Host, Material, Package, Recipe, Source, Target, Toolchain


@dataclass(frozen=True)
class BuildLock:
    """A lock, as the words of the design.

    toolchain has what this build may use of it alone: one TorchBuild, one base.
    source_digest is that of the sdist, or of the source folder's tree. fatwheel: the version that
    wrote it.
    """

    recipe: Recipe
    source_digest: str
    toolchain: Toolchain
    python: str
    torch: str
    host: Host
    fatwheel: str = __version__


def lock_of(target: Target, host: Host) -> BuildLock:
    """The lock of one target. Raises ConfigError where its source folder cannot be read."""
    source = target.recipe.source
    digest = source.package.sha256 if source.package else tree_digest(_folder(source))
    toolchain = narrowed(target)
    return BuildLock(target.recipe, digest, toolchain, target.python, target.torch, host)


def target_of(lock: BuildLock, archs: tuple[ArchRequest, ...]) -> Target:
    """The target that a lock was made for, with these architectures."""
    return Target(lock.recipe, lock.toolchain, lock.python, lock.torch, archs)


def recorded(recipe: Recipe, toolchain: Toolchain) -> dict[str, Any]:
    """What a wheel's record says of both; so do their locks."""
    return {
        "recipe": {
            "name": recipe.name,
            "project": recipe.project,
            "version": recipe.version,
            "source": recipe.source.package.sha256 if recipe.source.package else None,
            "digest": recipe.digest,
        },
        "toolchain": {
            "name": toolchain.name,
            "platform": toolchain.platform,
            "cuda": toolchain.cuda,
            "nvcc": toolchain.nvcc,
            "digest": toolchain.digest,
        },
    }


def pins_of(recipe: Recipe, toolchain: Toolchain) -> tuple[Package | Download, ...]:
    """Every file that can be fetched, of a recipe and of all that a toolchain has."""
    found: list[Package | Download] = [recipe.source.package] if recipe.source.package else []
    found += [*recipe.runtime, *toolchain.packages, *toolchain.cuda_files]
    found += [package for build in toolchain.builds for package in build.packages]
    found += [one.download for one in toolchain.interpreters]
    if toolchain.msvc:
        found.append(toolchain.msvc.bootstrapper)
    return tuple(found)


def materials_of(lock: BuildLock) -> tuple[Material, ...]:
    """All that went into a build, and is known by its hash; in the lock's order, each once.

    Recipe and toolchain may both list a package that is needed at run time.
    """
    return tuple(dict.fromkeys(_materials(lock)))


def _materials(lock: BuildLock) -> Iterator[Material]:
    recipe, toolchain, host = lock.recipe, lock.toolchain, lock.host
    if recipe.source.package is None:
        digest = lock.source_digest
        yield Material("source", recipe.project, recipe.version, "", 0, digest, "")
    else:
        yield _of_package(recipe.source.package)
    packages = (*toolchain.packages, *toolchain.builds[0].packages, *recipe.runtime)
    yield from (_of_package(package) for package in packages if package.locked)
    yield from (_of_download("cuda", file) for file in toolchain.cuda_files if file.locked)
    for one in toolchain.interpreters:
        if one.download.locked:
            yield _of_download("interpreter", one.download)
    if toolchain.msvc and toolchain.msvc.bootstrapper.locked:
        yield _of_download("msvc", toolchain.msvc.bootstrapper)
    bases = toolchain.containers.bases if toolchain.containers else ()
    for base in bases:
        if base.digest:
            digest = base.digest.removeprefix("sha256:")
            yield Material("image", base.reference, "", "", 0, digest, "")
    name, _, version = host.compiler.partition(" ")
    yield Material("host", name, version, "", 0, host.compiler_id, "")


def _of_package(one: Package) -> Material:
    return Material(one.role, one.name, one.version, one.filename, one.size, one.sha256, one.url)


def _of_download(role: str, one: Download) -> Material:
    return Material(role, one.name, one.version, one.filename, one.size, one.sha256, one.url)


def narrowed(target: Target) -> Toolchain:
    """A target's toolchain without what is for other targets.

    All interpreters stay: they are in one image.
    """
    toolchain, python = target.toolchain, target.python
    containers = toolchain.containers
    if containers:
        containers = replace(containers, bases=_bases_for(containers.bases, python))
    wanted = (target.torch, python)
    return replace(
        toolchain,
        builds=tuple(one for one in toolchain.builds if (one.torch, one.python) == wanted),
        containers=containers,
        default_torch=target.torch,
        cuda_manifest="",
    )


def _bases_for(bases: tuple[Base, ...], python: str) -> tuple[Base, ...]:
    return tuple(base for base in bases if not base.pythons or python in base.pythons)[:1]


def _folder(source: Source) -> Path:
    assert source.folder is not None, "a source is a package or a folder"
    return source.folder
