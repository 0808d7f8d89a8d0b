"""What may stand in recipe.toml and in a toolchain's TOML: keys, types, defaults.

A field's description is what the user reads where the key is missing. docs/recipes.md explains
the keys of a recipe.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from . import fields


class Table(BaseModel):
    """A TOML table: no key but those listed, no value of another type."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SourceTable(Table):
    """Either sdist, size and sha256, or folder: see `crosschecks`."""

    sdist: str | None = Field(None, description="the source distribution's file name")
    size: fields.Bytes | None = Field(None, description="the sdist's size in bytes")
    sha256: fields.Sha256 | None = Field(None, description="the sdist's sha256")
    folder: fields.Folder | None = Field(None, description="a folder beside this file")


class CostTable(Table):
    units: str = Field(description="a pattern of unit names, as in '*_bwd_*'")
    memory: fields.Size | None = None
    seconds: fields.Seconds | None = None


class RecipeFile(Table):
    """kernels/NAME/recipe.toml."""

    project: fields.Project = Field(description="the project's name, as its METADATA has it")
    version: fields.PublicVersion = Field(description="its version, as its METADATA has it")
    source: SourceTable = Field(description="a table that names an sdist or a folder")
    archs: list[fields.RequestedArch] = Field(
        description="the default GPU architectures, as in ['80', '90+ptx']"
    )
    imports: list[fields.Module] = Field(
        description="the modules that must import from the finished wheel"
    )
    subdirectory: fields.Folder | None = None
    environment: dict[fields.Variable, fields.Value] = {}
    stub_commands: list[fields.Command] = []
    memory: fields.Size = 4 * 2**30
    seconds: fields.Seconds = 120.0
    cost: list[CostTable] = []
    epoch: fields.Epoch = fields.FIRST_EPOCH


class PackageTable(Table):
    name: fields.Project = Field(description="the package's name")
    version: fields.PublicVersion = Field(description="the package's version")
    file: str = Field(description="the wheel's file name, as the index lists it")
    size: fields.Bytes = Field(description="the wheel's size in bytes")
    sha256: fields.Sha256 = Field(description="the wheel's sha256")
    role: Literal["compiler", "build", "runtime"] = Field(
        description="'compiler', 'build' or 'runtime'"
    )


class BuildTable(Table):
    python: fields.Python = Field(description="a Python, as in '3.11'")
    torch: fields.PublicVersion = Field(description="a torch, as in '2.11.0'")
    packages: list[PackageTable] = Field(description="the wheels that only this build has")


class ToolchainFile(Table):
    """toolchains/NAME.toml."""

    name: str = Field(description="the file's name without .toml")
    platform: fields.Platform = Field(description="the target, as in 'linux-x86_64'")
    cuda: fields.Release = Field(description="CUDA's version, as in '13.0'")
    nvcc: fields.Release = Field(description="nvcc's version, as in '13.0.88'")
    archs: list[fields.Arch] = Field(description="the GPU architectures that its nvcc knows")
    gcc: list[int] = Field(description="oldest and newest major version of g++, as in [9, 15]")
    packages: list[PackageTable] = Field(description="the wheels that every build has")
    builds: list[BuildTable] = Field(description="one table for each Python and torch")
