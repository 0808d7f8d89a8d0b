"""Reads and writes fatwheel.lock.json; every value is validated by its type.

The kinds are those of recipes and toolchains (`config.fields`), so that a lock from anywhere can
say nothing that no TOML file could. Lists are bounded, too. What lies between values comes last.

    {"schema": 1, "fatwheel": "0.1.0", "python": "3.11", "torch": "2.11.0",
     "recipe": {"name": ..., "source": {"package": {...}, "folder": "", "sha256": ...}, ...},
     "toolchain": {"name": ..., "packages": [...], "torch_packages": [...], ...},
     "host": {"compiler": "g++ 12.2.0", "compiler_id": SHA256, "python": "3.11.7"}}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from .. import __version__
from ..arch import parse_arch
from ..config import fields
from ..config.load import recipe_folder
from ..errors import FormatError
from ..model import (
    Base,
    Containers,
    Download,
    Host,
    Interpreter,
    Msvc,
    Package,
    Recipe,
    Source,
    Toolchain,
    TorchBuild,
)
from ..storage.documents import json_bytes, read_object
from .buildlock import BuildLock


def _unless(nothing: object) -> WrapValidator:
    """Also accepts this value, meaning none; a union would name each kind in its messages."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        return value if (type(value), value) == (type(nothing), nothing) else handler(value)

    return WrapValidator(check)


# Of what `invoke lock` has not filled in yet, nothing is known.
_Sha256 = Annotated[fields.Sha256, _unless("")]
_Size = Annotated[fields.Bytes, _unless(0)]
_Url = Annotated[fields.Url, _unless("")]
_Digest = Annotated[fields.Digest, _unless("")]
_Folder = Annotated[fields.Folder, _unless("")]


class _Part(BaseModel):
    """A JSON object: these keys, no other, and no value of another kind."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Pin(_Part):
    name: fields.Part
    filename: fields.File
    version: fields.AnyVersion
    size: _Size
    sha256: _Sha256
    url: _Url


class LockedPackage(_Pin):
    name: fields.Project
    filename: fields.WheelFile
    role: fields.Role


class LockedSdist(_Pin):
    name: fields.Project
    filename: fields.SdistFile
    role: Literal["source"]


class LockedDownload(_Pin):
    """A file that is no package."""


class LockedInterpreter(_Part):
    python: fields.Python
    download: LockedDownload


class LockedMsvc(_Part):
    visual_studio: fields.Release
    cl: fields.Release
    toolset: fields.Toolset
    components: Annotated[tuple[fields.Component, ...], fields.Few]
    bootstrapper: LockedDownload


class LockedBase(_Part):
    reference: fields.Reference
    digest: _Digest
    pythons: Annotated[tuple[fields.Python, ...], fields.Few]


class LockedContainers(_Part):
    os: Literal["linux", "windows"]
    os_build: fields.OsBuild
    bases: Annotated[tuple[LockedBase, ...], fields.Few]


class LockedSource(_Part):
    package: LockedSdist | None
    folder: _Folder
    sha256: fields.Sha256


class LockedRecipe(_Part):
    name: fields.Name
    project: fields.Project
    version: fields.PublicVersion
    digest: fields.Sha256
    source: LockedSource
    subdirectory: _Folder
    environment: Annotated[dict[fields.Variable, fields.Value], fields.Few]
    stub_commands: Annotated[tuple[fields.Command, ...], fields.Few]
    imports: Annotated[tuple[fields.Module, ...], fields.Few]
    runtime: Annotated[tuple[LockedPackage, ...], fields.Few]
    epoch: fields.AnyEpoch


class LockedToolchain(_Part):
    name: fields.Label
    platform: fields.Platform
    cuda: fields.Release
    nvcc: fields.Release
    archs: Annotated[tuple[fields.Arch, ...], fields.Few]
    gcc: tuple[fields.Major, fields.Major] | None
    digest: fields.Sha256
    packages: Annotated[tuple[LockedPackage, ...], fields.Many]
    torch_packages: Annotated[tuple[LockedPackage, ...], fields.Many]
    cuda_files: Annotated[tuple[LockedDownload, ...], fields.Many]
    interpreters: Annotated[tuple[LockedInterpreter, ...], fields.Few]
    msvc: LockedMsvc | None
    containers: LockedContainers | None


class LockedHost(_Part):
    compiler: fields.Compiler
    compiler_id: fields.Sha256
    python: fields.FullPython


class LockedFile(_Part):
    schema_: Annotated[Literal[1], Field(alias="schema")]
    fatwheel: fields.AnyVersion
    python: fields.Python
    torch: fields.Torch
    recipe: LockedRecipe
    toolchain: LockedToolchain
    host: LockedHost


def mistakes_between(file: LockedFile) -> Iterator[str]:
    """Contradictions between values, each with its place."""
    recipe, toolchain = file.recipe, file.toolchain
    if (recipe.source.package is None) == (recipe.source.folder == ""):
        yield "recipe.source: it must have either a package or a folder"
    packages = (*toolchain.packages, *toolchain.torch_packages)
    sources = [recipe.source.package] if recipe.source.package else []
    for one in (*sources, *recipe.runtime, *packages):
        sdist = isinstance(one, LockedSdist)
        parse = parse_sdist_filename if sdist else parse_wheel_filename
        if parse(one.filename)[:2] != (canonicalize_name(one.name), Version(one.version)):
            yield f"{one.filename} is not {one.name} {one.version}"
    files: dict[str, str] = {}
    for pin in (*packages, *_downloads(toolchain)):
        # They can lie in one folder, and not every disk tells capitals.
        if files.setdefault(pin.filename.lower(), pin.sha256) != pin.sha256:
            yield f"{pin.filename}: two files have this name"


def _downloads(toolchain: LockedToolchain) -> Iterator[LockedDownload]:
    yield from toolchain.cuda_files
    yield from (one.download for one in toolchain.interpreters)
    if toolchain.msvc:
        yield toolchain.msvc.bootstrapper


# -- reading and writing ---------------------------------------------------------------------------

# It is all that is needed to do a build again, so it is read like any other file from anywhere:
# nothing in it is used before all of it was held against `lockfile`.


FILE = "fatwheel.lock.json"
SCHEMA = 1
MOST = 1 << 20  # bytes; the largest toolchain's has 40 KiB

_MOST_VALUES = 20_000
_MISTAKES_SHOWN = 8
_LONGEST = 200  # characters of what is said
# What a recipe says of memory (bytes) and time (seconds) decides nothing about a wheel, so it is
# not locked; this stands in for it.
_MEMORY = 4 << 30
_SECONDS = 60.0


def lock_bytes(lock: BuildLock) -> bytes:
    """A lock as it lies in a wheel: the same lock gives the same bytes."""
    return json_bytes(lock_fields(lock))


def lock_fields(lock: BuildLock) -> dict[str, Any]:
    """A lock as nested dicts, for comparing."""
    recipe, toolchain = lock.recipe, lock.toolchain
    package, folder = recipe.source.package, recipe.source.folder
    return {
        "schema": SCHEMA,
        "fatwheel": lock.fatwheel,
        "python": lock.python,
        "torch": lock.torch,
        "recipe": {
            "name": recipe.name,
            "project": recipe.project,
            "version": recipe.version,
            "digest": recipe.digest,
            "source": {
                "package": _fields(package) if package else None,
                "folder": folder.relative_to(recipe.folder).as_posix() if folder else "",
                "sha256": lock.source_digest,
            },
            "subdirectory": recipe.subdirectory,
            "environment": recipe.environment,
            "stub_commands": recipe.stub_commands,
            "imports": recipe.imports,
            "runtime": tuple(map(_fields, recipe.runtime)),
            "epoch": recipe.epoch,
        },
        "toolchain": {
            "name": toolchain.name,
            "platform": toolchain.platform,
            "cuda": toolchain.cuda,
            "nvcc": toolchain.nvcc,
            "archs": tuple(arch.name for arch in toolchain.archs),
            "gcc": toolchain.gcc,
            "digest": toolchain.digest,
            "packages": tuple(map(_fields, toolchain.packages)),
            "torch_packages": tuple(map(_fields, toolchain.builds[0].packages)),
            "cuda_files": tuple(map(_fields, toolchain.cuda_files)),
            "interpreters": tuple(map(_fields, toolchain.interpreters)),
            "msvc": _fields(toolchain.msvc) if toolchain.msvc else None,
            "containers": _fields(toolchain.containers) if toolchain.containers else None,
        },
        "host": asdict(lock.host),
    }


def _fields(part: Any) -> dict[str, Any]:
    """A part of the model, without the hosts of pins: they say what this machine thinks of a lock,
    and not what the lock says."""
    return asdict(part, dict_factory=lambda items: dict(i for i in items if i[0] != "hosts"))


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
        file = LockedFile.model_validate_json(data)
    except ValidationError as error:
        raise _damaged(where, [_said(one) for one in error.errors()]) from error
    mistakes = list(mistakes_between(file))
    if mistakes:
        raise _damaged(where, mistakes)
    lock = _from_file(file, kernels)
    if lock_bytes(lock) != data:
        raise _damaged(where, ["it is not in the form that fatwheel writes: something was added"])
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
    return f"{place}: {error['msg'].removeprefix('Value error, ')[:_LONGEST]}"


# -- into the model ------------------------------------------------------------------------------


def _from_file(file: LockedFile, kernels: Sequence[Path]) -> BuildLock:
    return BuildLock(
        recipe=_recipe(file.recipe, recipe_folder(file.recipe.name, *kernels)),
        source_digest=file.recipe.source.sha256,
        toolchain=_toolchain(file),
        python=file.python,
        torch=file.torch,
        host=Host(**dict(file.host)),
        fatwheel=file.fatwheel,
    )


def _recipe(part: LockedRecipe, folder: Path) -> Recipe:
    package = _package(part.source.package) if part.source.package else None
    place = folder / part.source.folder if part.source.folder else None
    return Recipe(
        name=part.name,
        project=part.project,
        version=part.version,
        source=Source(package, place),
        archs=(),
        environment=part.environment,
        imports=part.imports,
        memory=_MEMORY,
        seconds=_SECONDS,
        costs=(),
        epoch=part.epoch,
        folder=folder,
        digest=part.digest,
        subdirectory=part.subdirectory,
        stub_commands=part.stub_commands,
        runtime=tuple(map(_package, part.runtime)),
    )


def _toolchain(file: LockedFile) -> Toolchain:
    part = file.toolchain
    packages = tuple(map(_package, part.torch_packages))
    return Toolchain(
        name=part.name,
        platform=part.platform,
        cuda=part.cuda,
        nvcc=part.nvcc,
        archs=tuple(map(parse_arch, part.archs)),
        gcc=part.gcc,
        packages=tuple(map(_package, part.packages)),
        builds=(TorchBuild(file.torch, file.python, packages),),
        digest=part.digest,
        default_torch=file.torch,
        cuda_files=tuple(map(_download, part.cuda_files)),
        interpreters=tuple(
            Interpreter(one.python, _download(one.download)) for one in part.interpreters
        ),
        msvc=_msvc(part.msvc) if part.msvc else None,
        containers=_containers(part.containers) if part.containers else None,
    )


def _package(part: LockedPackage | LockedSdist) -> Package:
    return Package(**dict(part))


def _download(part: LockedDownload) -> Download:
    return Download(**dict(part))


def _msvc(part: LockedMsvc) -> Msvc:
    return Msvc(**{**dict(part), "bootstrapper": _download(part.bootstrapper)})


def _containers(part: LockedContainers) -> Containers:
    bases = tuple(Base(**dict(base)) for base in part.bases)
    return Containers(part.os, part.os_build, bases)
