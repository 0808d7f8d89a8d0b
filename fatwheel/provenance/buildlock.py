"""The lock of a build: everything that it may use, by hash.

A lock is for one recipe, Python and torch; it does not depend on the architectures, nor on where
the build runs: processes and containers with the same tools have the same lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .. import __version__
from ..arch import ArchRequest
from ..config.model import Download, Package, Recipe, Target, Toolchain
from ..model import Host


@dataclass(frozen=True, kw_only=True)
class BuildLock:
    """toolchain has what this build may use of it alone: one TorchBuild, one base. fatwheel: the
    version that wrote it."""

    recipe: Recipe
    toolchain: Toolchain
    python: str
    torch: str
    host: Host
    fatwheel: str = __version__

    @property
    def files(self) -> tuple[Package | Download, ...]:
        """Every file that the build may fetch."""
        return (*self.recipe.files, *self.toolchain.files)


def lock_of(target: Target, host: Host) -> BuildLock:
    """The lock of one target."""
    return BuildLock(
        recipe=target.recipe,
        toolchain=target.tools,
        python=target.python,
        torch=target.torch,
        host=host,
    )


def target_of(lock: BuildLock, archs: tuple[ArchRequest, ...]) -> Target:
    """The target that a lock was made for, with these architectures."""
    return Target(lock.recipe, lock.toolchain, lock.python, lock.torch, archs)


@dataclass(frozen=True)
class Material:
    """One thing that went into a build, and its sha256.

    role: as a Package's, or 'source-archive', 'patch', 'cuda', 'interpreter', 'msvc', 'image',
    'host'. filename and url may be '', size 0 where there is none. The url of a commit begins with
    `git+`, and its sha256 covers its submodules.
    """

    role: str
    name: str
    version: str
    filename: str
    size: int
    sha256: str
    url: str


def materials_of(lock: BuildLock) -> tuple[Material, ...]:
    """All that went into a build, and is known by its hash; in the lock's order, each once.

    Recipe and toolchain may both list a package that is needed at run time.
    """
    return tuple(dict.fromkeys(_materials(lock)))


def _materials(lock: BuildLock) -> Iterator[Material]:
    recipe, toolchain, host = lock.recipe, lock.toolchain, lock.host
    yield from _of_source(recipe)
    packages = (*toolchain.packages, *toolchain.builds[0].packages, *recipe.runtime)
    yield from (_of_package(package) for package in packages if package.locked)
    yield from (_of_download("cuda", file) for file in toolchain.cuda_files if file.locked)
    for one in (*toolchain.interpreters, *toolchain.portable):
        if one.download.locked:
            yield _of_download("interpreter", one.download)
    for file in toolchain.msvc.payloads if toolchain.msvc else ():
        if file.locked:
            yield _of_download("msvc", file)
    if toolchain.msvc and toolchain.msvc.installed:
        for own in toolchain.msvc.installed.files:
            yield Material("msvc", own.name, toolchain.msvc.cl, "", 0, own.sha256, "")
    for own in toolchain.installed.files if toolchain.installed else ():
        yield Material("compiler", own.name, toolchain.nvcc, "", 0, own.sha256, "")
    for base in toolchain.bases:
        if base.digest:
            digest = base.digest.removeprefix("sha256:")
            yield Material("image", base.reference, "", "", 0, digest, "")
    name, _, version = host.compiler.partition(" ")
    yield Material("host", name, version, "", 0, host.compiler_id, "")


def _of_source(recipe: Recipe) -> Iterator[Material]:
    source = recipe.source
    if source.package:
        yield _of_package(source.package)
    elif source.archive:
        yield _of_download("source-archive", source.archive)
    else:
        url = source.git.vcs_url if source.git else ""
        yield Material("source", recipe.project, recipe.version, "", 0, source.sha256, url)
    for patch in source.patches:
        yield Material("patch", patch.file, "", "", 0, patch.sha256, "")


def _of_package(one: Package) -> Material:
    return Material(one.role, one.name, one.version, one.filename, one.size, one.sha256, one.url)


def _of_download(role: str, one: Download) -> Material:
    return Material(role, one.name, one.version, one.filename, one.size, one.sha256, one.url)
