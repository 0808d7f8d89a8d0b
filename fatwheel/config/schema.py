"""The schema of recipe.toml and of a toolchain's TOML file: keys, types, defaults.

A field's description is what the user reads where the key is missing. docs/recipes.md and
docs/toolchains.md explain the keys.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from . import fields


class Table(BaseModel):
    """A TOML table: no key but those listed, no value of another type or grammar."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SourceTable(Table):
    """Either sdist, size and sha256, or folder: see `checks`."""

    sdist: fields.SdistFile | None = Field(None, description="the source distribution's file name")
    size: fields.Bytes | None = Field(None, description="the sdist's size in bytes")
    sha256: fields.Sha256 | None = Field(None, description="the sdist's sha256")
    folder: fields.Folder | None = Field(None, description="a folder beside this file")


class CostTable(Table):
    units: fields.Pattern = Field(description="a pattern of unit names, as in '*_bwd_*'")
    memory: fields.Size | None = None
    seconds: fields.Seconds | None = None


class RuntimeTable(Table):
    """A wheel of the user's index; size and sha256 must be there, see `checks`."""

    name: fields.Project = Field(description="the package's name")
    version: fields.AnyVersion = Field(description="the package's version")
    file: fields.WheelFile = Field(description="the wheel's file name, as the index lists it")
    size: fields.Bytes | None = Field(None, description="the wheel's size in bytes")
    sha256: fields.Sha256 | None = Field(None, description="the wheel's sha256")


class RecipeFile(Table):
    """kernels/NAME/recipe.toml."""

    project: fields.Project = Field(description="the project's name, as its METADATA has it")
    version: fields.PublicVersion = Field(description="its version, as its METADATA has it")
    source: SourceTable = Field(description="a table that names an sdist or a folder")
    archs: Annotated[list[fields.RequestedArch], fields.Few] = Field(
        description="the default GPU architectures, as in ['80', '90+ptx']"
    )
    imports: Annotated[list[fields.Module], fields.Few] = Field(
        description="the modules that must import from the finished wheel"
    )
    subdirectory: fields.Folder | None = None
    environment: Annotated[dict[fields.Variable, fields.Value], fields.Few] = {}
    stub_commands: Annotated[list[fields.Command], fields.Few] = []
    memory: fields.Size = 4 * 2**30
    seconds: fields.Seconds = 120.0
    cost: Annotated[list[CostTable], fields.Many] = []
    runtime: Annotated[list[RuntimeTable], fields.Few] = []
    verify: fields.Script | None = None
    epoch: fields.Epoch = fields.FIRST_EPOCH


class PackageTable(RuntimeTable):
    """A wheel: of the user's index, or of a URL, and then size and sha256 may be unknown."""

    url: fields.Url | None = Field(None, description="where the wheel is, if not on the index")
    role: fields.Role = Field(description="'compiler', 'build', 'runtime' or 'installer'")


class BuildTable(Table):
    python: fields.Python = Field(description="a Python, as in '3.11'")
    torch: fields.Torch = Field(description="a torch, as in '2.11.0'")
    packages: Annotated[list[PackageTable], fields.Many] = Field(
        description="the wheels that only this build has"
    )


class BootstrapperTable(Table):
    """A file that is no wheel; `invoke lock` finds out size and sha256 where they are missing."""

    version: fields.Release = Field(description="the file's version")
    url: fields.Url = Field(description="where the file is")
    size: fields.Bytes | None = Field(None, description="the file's size in bytes")
    sha256: fields.Sha256 | None = Field(None, description="the file's sha256")


class CudaTable(BootstrapperTable):
    name: fields.Part = Field(description="what NVIDIA calls it, as in 'cuda_nvcc'")


class InterpreterTable(BootstrapperTable):
    python: fields.Python = Field(description="a Python, as in '3.11'")


class MsvcTable(Table):
    visual_studio: fields.Release = Field(description="the Build Tools, as in '17.8.2'")
    cl: fields.Release = Field(description="what cl says, as in '19.38.33130'")
    toolset: fields.Toolset = Field(description="for vcvars64.bat -vcvars_ver, as in '14.38'")
    components: Annotated[list[fields.Component], fields.Few] = Field(
        description="the ids to install"
    )
    bootstrapper: BootstrapperTable = Field(description="a table: version, url, size, sha256")


class BaseTable(Table):
    reference: fields.Reference = Field(description="an image, as in 'python:3.11-bookworm'")
    digest: fields.Digest | None = Field(None, description="the digest it must have")
    pythons: Annotated[list[fields.Python], fields.Few] = []


class ContainersTable(Table):
    os: Literal["linux", "windows"] = Field(description="'linux' or 'windows'")
    os_build: fields.OsBuild | None = Field(
        None, description="the Windows build of the base, as in 20348"
    )
    bases: Annotated[list[BaseTable], fields.Few] = Field(description="the images to build on")


class ToolchainFile(Table):
    """toolchains/NAME.toml."""

    name: fields.Label = Field(description="the file's name without .toml")
    platform: fields.Platform = Field(description="the target, as in 'linux-x86_64'")
    cuda: fields.Release = Field(description="CUDA's version, as in '13.0'")
    nvcc: fields.Release = Field(description="nvcc's version, as in '13.0.88'")
    archs: Annotated[list[fields.Arch], fields.Few] = Field(
        description="the GPU architectures that its nvcc knows"
    )
    default_torch: fields.Torch | None = Field(
        None, description="the torch to build against unless asked otherwise"
    )
    gcc: Annotated[list[fields.Major], fields.Few] | None = Field(
        None, description="oldest and newest major version of g++, as in [9, 15]"
    )
    msvc: MsvcTable | None = Field(None, description="the C++ compiler of a Windows toolchain")
    containers: ContainersTable | None = Field(None, description="a table: how to make images")
    cuda_manifest: fields.Url | None = None
    cuda_files: Annotated[list[CudaTable], fields.Many] = []
    interpreters: Annotated[list[InterpreterTable], fields.Few] = []
    packages: Annotated[list[PackageTable], fields.Many] = Field(
        description="the wheels that every build has"
    )
    builds: Annotated[list[BuildTable], fields.Few] = Field(
        description="one table for each Python and torch"
    )
