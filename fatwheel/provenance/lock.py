"""The lock of a build: everything that it may use, by hash.

A lock is for one recipe, Python and torch; it does not depend on the architectures, nor on where
the build runs: processes and containers with the same tools have the same lock.

In a wheel it is fatwheel.lock.json, and every value that is read is validated by its type. It says
of recipe and toolchain what `config.recipe` and `config.toolchain` have, so that a lock from
anywhere can say nothing that no TOML file could. Lists are bounded, too. What lies between values
comes last.

    {"schema": 1, "fatwheel": "0.1.0", "python": "3.11", "torch": "2.11.0",
     "recipe": {"name": ..., "source": {"package": {...}, "folder": "", "sha256": ...}, ...},
     "toolchain": {"name": ..., "packages": [...], "torch_packages": [...], ...},
     "host": {"compiler": "g++ 12.2.0", "compiler_id": SHA256, "python": "3.11.7"}}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version
from pydantic import ValidationError

from .. import __version__
from ..arch import ArchRequest
from ..config import fields
from ..config.load import recipe_folder
from ..config.mistakes import is_extra
from ..config.pinned import Download, Package, Packages, Sdist, Table
from ..config.recipe import Recipe, SourcePin, Target
from ..config.toolchain import DebianPackage, Toolchain, TorchBuild
from ..errors import FormatError
from ..model import Host
from ..storage.documents import json_bytes, read_object


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
        return (*self.recipe.files, *self.recipe.build, *self.toolchain.files)


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
    'host'; 'wine' for what the image with Wine is made of, of which only wheels that were built in
    it tell. filename and url may be '', size 0 where there is none. The url of a commit begins with
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
    of_toolchain = (*toolchain.packages, *toolchain.builds[0].packages)
    packages = (*of_toolchain, *toolchain.device_packages, *recipe.build, *recipe.runtime)
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


def wine_materials(toolchain: Toolchain) -> tuple[Material, ...]:
    """The packages of Debian that the image with Wine is made of. A lock has them, but it does not
    say whether the build ran there."""
    return tuple(_of_debian(one) for one in (toolchain.wine.packages if toolchain.wine else ()))


def _of_debian(package: DebianPackage) -> Material:
    filename = package.path.rpartition("/")[2]
    name, version, _ = filename.rsplit("_", 2)
    return Material("wine", name, version, filename, package.size, package.sha256, "")


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


FILE = "fatwheel.lock.json"
SCHEMA: Literal[1] = 1
MOST = 1 << 20  # bytes; the largest toolchain's has 40 KiB

_MOST_VALUES = 20_000
_MISTAKES_SHOWN = 8
_LONGEST = 200  # characters of what is said


@dataclass(frozen=True, kw_only=True)
class LockedToolchain(Toolchain):
    """With the one build that the lock is for."""

    torch_packages: Packages


@dataclass(frozen=True)
class LockedHost(Host, Table):
    compiler: fields.Compiler
    compiler_id: fields.Sha256
    python: fields.FullPython


@dataclass(frozen=True, kw_only=True)
class LockFile(Table):
    schema: Literal[1] = SCHEMA
    fatwheel: fields.AnyVersion
    python: fields.Python
    torch: fields.Torch
    recipe: Recipe
    toolchain: LockedToolchain
    host: LockedHost


def _file(lock: BuildLock) -> LockFile:
    packages = lock.toolchain.builds[0].packages
    return LockFile(
        fatwheel=lock.fatwheel,
        python=lock.python,
        torch=lock.torch,
        recipe=lock.recipe,
        toolchain=LockedToolchain(**vars(lock.toolchain), torch_packages=packages),
        host=LockedHost(**vars(lock.host)),
    )


def _lock(file: LockFile, kernels: Sequence[Path]) -> BuildLock:
    tools = dict(vars(file.toolchain))
    build = TorchBuild(file.torch, file.python, tools.pop("torch_packages"))
    return BuildLock(
        recipe=replace(file.recipe, folder=recipe_folder(file.recipe.name, *kernels)),
        toolchain=Toolchain(**{**tools, "builds": (build,), "default_torch": file.torch}),
        python=file.python,
        torch=file.torch,
        host=Host(**vars(file.host)),
        fatwheel=file.fatwheel,
    )


def lock_bytes(lock: BuildLock) -> bytes:
    """A lock as it lies in a wheel: the same lock gives the same bytes."""
    return json_bytes(lock_fields(lock))


def lock_fields(lock: BuildLock) -> dict[str, Any]:
    """A lock as nested dicts, for comparing."""
    found: dict[str, Any] = fields.adapter(LockFile).dump_python(_file(lock))
    return found


def read_lock(data: bytes, where: str, *kernels: Path) -> BuildLock:
    """A lock from anywhere. kernels: folders in which a recipe's own sources are looked for.

    Raises FormatError where it is damaged, or was written by a newer fatwheel.
    """
    try:
        content = read_object(data, where, MOST, _MOST_VALUES)
    except FormatError as error:
        raise _damaged(where, [error.what]) from error
    _check_schema(content, where)
    try:
        file = fields.adapter(LockFile).validate_json(data)
    except ValidationError as error:
        raise _damaged(where, [_said(one) for one in error.errors()]) from error
    mistakes = list(mistakes_between(file))
    if mistakes:
        raise _damaged(where, mistakes)
    lock = _lock(file, kernels)
    if lock_bytes(lock) != data:
        raise _damaged(
            where, ["it is not in the form that fatwheel writes: something was added or left out"]
        )
    return lock


def _check_schema(content: dict[str, Any], where: str) -> None:
    schema, written = content.get("schema"), content.get("fatwheel")
    if not isinstance(schema, int) or not isinstance(written, str):
        mistake = "it does not name the fatwheel version and the schema that it was written with"
        raise _damaged(where, [mistake])
    if schema != SCHEMA:
        raise FormatError(
            f"fatwheel {written[:40]} wrote it, with schema {schema}, which this version does "
            f"not support; supported: {SCHEMA}",
            where=where,
            hint=f"this is fatwheel {__version__}: use that version, or a newer one",
        )


def _damaged(where: str, mistakes: list[str]) -> FormatError:
    return FormatError(
        "the lock is damaged, or was changed by hand",
        where=where,
        details=mistakes[:_MISTAKES_SHOWN],
        hint="get it again from its source",
    )


def _said(error: Any) -> str:
    """Where it stands, by a name that may be foreign, and what is wrong."""
    place = ".".join(map(str, error["loc"]))[:_LONGEST]
    if is_extra(error):
        return f"{place}: {fields.EXTRA}"
    return f"{place}: {error['msg'].removeprefix('Value error, ')[:_LONGEST]}"


def mistakes_between(file: LockFile) -> Iterator[str]:
    """Contradictions between values, each with its place."""
    recipe, toolchain = file.recipe, file.toolchain
    yield from _source_mistakes(recipe.source)
    packages = (*toolchain.packages, *toolchain.torch_packages, *toolchain.device_packages)
    if toolchain.device_packages and not toolchain.msvc:
        yield "toolchain.device_packages: only a toolchain for Windows has them"
    if toolchain.installed and (packages or toolchain.files or toolchain.bases):
        yield "toolchain.installed: beside it there can be no pins"
    if toolchain.msvc and toolchain.msvc.installed and toolchain.msvc.payloads:
        yield "toolchain.msvc.installed: beside it there can be no packages"
    for one in (*recipe.files, *recipe.build, *packages):
        if isinstance(one, Download):
            continue
        sdist = isinstance(one, Sdist)
        parse = parse_sdist_filename if sdist else parse_wheel_filename
        if parse(one.filename)[:2] != (canonicalize_name(one.name), Version(one.version)):
            yield f"{one.filename} is not {one.name} {one.version}"
    files: dict[str, str] = {}
    for pin in (*toolchain.files, *toolchain.torch_packages):
        # They can lie in one folder, and not every disk tells capitals.
        if files.setdefault(pin.filename.lower(), pin.sha256) != pin.sha256:
            yield f"{pin.filename}: two files have this name"


def _source_mistakes(source: SourcePin) -> Iterator[str]:
    if source.kinds != 1:
        yield "recipe.source: it must have one of package, archive, git, folder and checkout"
    pinned = source.git or source.file
    if not source.sha256 or (pinned and pinned.sha256 != source.sha256):
        yield "recipe.source.sha256: it is not that of the source"
    if source.patches and not pinned:
        yield "recipe.source.patches: a folder has none"
    places = [one.path.lower() for one in source.git.submodules] if source.git else []
    if len(set(places)) != len(places):
        yield "recipe.source.git.submodules: two have one path"
