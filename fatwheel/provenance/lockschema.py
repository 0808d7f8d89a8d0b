"""What may stand in fatwheel.lock.json: every value of the kind that its own file must have it.

The kinds are those of recipes and toolchains (`load.fields`), so that a lock from anywhere can say
nothing that no TOML file could. Lists are bounded, too. What lies between values comes last.

    {"schema": 1, "fatwheel": "0.1.0", "python": "3.11", "torch": "2.11.0",
     "recipe": {"name": ..., "source": {"package": {...}, "folder": "", "sha256": ...}, ...},
     "toolchain": {"name": ..., "packages": [...], "torch_packages": [...], ...},
     "host": {"compiler": "g++ 12.2.0", "compiler_id": SHA256, "python": "3.11.7"}}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, WrapValidator

from ..load import fields


def _unless(nothing: object) -> WrapValidator:
    """Also this value, which stands for none; a union would name each of its kinds in mistakes."""

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
    """What no value says by itself, with its place."""
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
