"""What TOML files say otherwise than locks: recipe.toml, and a toolchain's file.

Here are the keys that only TOML has, and the tables that it has for a part of `model`. A field's
description is what the user reads where the key is missing. docs/recipes.md and docs/toolchains.md
explain the keys.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import Field

from ..provision.msvc import VISUAL_STUDIO
from . import fields
from .pinned import Download, Folder, Package, PinnedWheel, Sdist, Sha256, Size, Table, Url
from .recipe import (
    USUAL_MEMORY,
    USUAL_SECONDS,
    Cost,
    Patch,
    Recipe,
    RecipeKeys,
    Repository,
    SourcePin,
    Submodule,
)
from .sourcetree import patch_digest, tree_digest
from .toolchain import (
    Document,
    LockedInterpreter,
    LockedMsvc,
    MsvcTools,
    Toolchain,
    ToolchainKeys,
    TorchBuild,
)

VERIFY_FILE = "verify.py"  # where the recipe names no other


def filename_of(url: str) -> str:
    """What a file is called, by the end of its URL; Microsoft's installers have names with
    blanks."""
    return unquote(url.rpartition("/")[2]).replace(" ", "_")


# -- recipes ---------------------------------------------------------------------------------------


_UNLESS_SAID = Field(exclude_if=lambda value: not value)  # digests of older recipes stay


@dataclass(frozen=True)
class SourceTable(Table):
    """One kind of source, and what pins it: see `checks`."""

    sdist: fields.OrEmpty[fields.SdistFile]
    size: Annotated[Size, Field(description="the file's size in bytes")]
    sha256: Annotated[Sha256, Field(description="the file's sha256")]
    folder: Folder
    archive: Annotated[fields.OrEmpty[fields.TarUrl], _UNLESS_SAID] = ""
    git: Annotated[Url, _UNLESS_SAID] = ""
    commit: Annotated[
        fields.OrEmpty[fields.GitId], _UNLESS_SAID, Field(description="the commit's id")
    ] = ""
    tree: Annotated[
        fields.OrEmpty[fields.GitId], _UNLESS_SAID, Field(description="the id of the commit's tree")
    ] = ""
    submodules: Annotated[tuple[Submodule, ...], fields.Few, _UNLESS_SAID] = ()
    checkout: Annotated[fields.OrEmpty[fields.Value], _UNLESS_SAID] = ""
    patches: Annotated[tuple[fields.PatchFile, ...], fields.Few, _UNLESS_SAID] = ()

    def source(self, project: str, version: str, place: Path) -> SourcePin:
        """place: the recipe's folder. Raises ConfigError for files that cannot be read."""
        patches = tuple(Patch(name, patch_digest(place / name)) for name in self.patches)
        if self.folder:
            return SourcePin(None, self.folder, tree_digest(place / self.folder))
        if self.checkout:
            return SourcePin(checkout=True, path=place / Path(self.checkout).expanduser())
        if self.git:
            git = Repository(
                url=self.git, commit=self.commit, tree=self.tree, submodules=self.submodules
            )
            return SourcePin(sha256=git.sha256, git=git, patches=patches)
        if self.archive:
            name = filename_of(self.archive)
            file = Download(project, version, self.archive, name, self.size, self.sha256)
            return SourcePin(sha256=self.sha256, archive=file, patches=patches)
        sdist = Sdist(project, version, self.sdist, self.size, self.sha256, "source")
        return SourcePin(sdist, "", self.sha256, patches=patches)


@dataclass(frozen=True, kw_only=True)
class RecipeFile(RecipeKeys):
    """kernels/NAME/recipe.toml."""

    source: Annotated[SourceTable, Field(description="a table that says where the code is")]
    archs: Annotated[
        tuple[fields.RequestedArch, ...],
        fields.Few,
        Field(description="the default GPU architectures, as in ['80', '90+ptx']"),
    ]
    memory: fields.Size = USUAL_MEMORY
    seconds: fields.Seconds = USUAL_SECONDS
    cost: Annotated[tuple[Cost, ...], fields.Many] = ()
    runtime: Annotated[tuple[PinnedWheel, ...], fields.Few] = ()
    build: Annotated[tuple[PinnedWheel, ...], fields.Few, _UNLESS_SAID] = ()
    requires: Annotated[tuple[fields.Requirement, ...], fields.Few, _UNLESS_SAID] = ()
    verify: fields.OrEmpty[fields.Script] = ""
    epoch: fields.Epoch = fields.FIRST_EPOCH

    def recipe(self, folder: Path) -> Recipe:
        """The recipe in this folder. Raises ConfigError for sources that cannot be read."""
        verify = (folder / (self.verify or VERIFY_FILE)).resolve()
        source = self.source.source(self.project, self.version, folder)
        return Recipe(
            **_shared(self, RecipeKeys),
            name=folder.name,
            # What a wheel is checked with is no part of what it is made from.
            digest=_digest(
                {
                    "recipe": _meaning(self, {"verify"}),
                    "tree": source.sha256 if source.folder else None,
                    **_beside(source),
                }
            ),
            source=source,
            epoch=self.epoch,
            runtime=tuple(Package(**vars(wheel), role="runtime") for wheel in self.runtime),
            build=tuple(Package(**vars(wheel), role="build") for wheel in self.build),
            requires=self.requires,
            folder=folder,
            archs=self.archs,
            memory=self.memory,
            seconds=self.seconds,
            costs=tuple(
                replace(
                    cost,
                    memory=cost.memory or self.memory,
                    seconds=cost.seconds or self.seconds,
                )
                for cost in self.cost
            ),
            verify=verify if verify.is_file() else None,
        )


def _beside(source: SourcePin) -> dict[str, Any]:
    """What lies beside the recipe's file, by its digest; digests of older recipes stay."""
    patches = [one.sha256 for one in source.patches]
    return {"patches": patches} if patches else {}


# -- toolchains ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DownloadTable(Table):
    """A file that is no wheel; `invoke lock` finds out size and sha256 where they are missing."""

    version: Annotated[fields.Release, Field(description="the file's version")]
    url: Annotated[fields.Url, Field(description="where the file is")]
    size: Size = 0
    sha256: Sha256 = ""

    def download(self, name: str) -> Download:
        filename = filename_of(self.url)
        return Download(name, self.version, self.url, filename, self.size, self.sha256)


@dataclass(frozen=True, kw_only=True)
class CudaTable(DownloadTable):
    name: Annotated[fields.PartName, Field(description="what NVIDIA calls it, as in 'cuda_nvcc'")]


@dataclass(frozen=True, kw_only=True)
class InterpreterTable(DownloadTable):
    python: Annotated[fields.Python, Field(description="a Python, as in '3.11'")]

    def interpreter(self) -> LockedInterpreter:
        return LockedInterpreter(self.python, self.download("cpython"))


@dataclass(frozen=True, kw_only=True)
class PayloadTable(DownloadTable):
    """A package of MSVC or of a Windows SDK. `invoke lock` looks up in Microsoft's catalogue what
    is not said of it."""

    name: Annotated[fields.PartName, Field(description="its id, as the catalogue has it")]
    version: fields.OrEmpty[fields.Release] = ""
    url: Url = ""

    def payload(self) -> Download:
        if self.url:
            return self.download(self.name)
        return Download(
            self.name, self.version, "", f"{self.name}{VISUAL_STUDIO}", self.size, self.sha256
        )


@dataclass(frozen=True, kw_only=True)
class MsvcTable(MsvcTools):
    channel: Annotated[Document, Field(description="a table: url, sha256")]
    catalogue: Annotated[Document, Field(description="a table: url, sha256")]
    payloads: Annotated[
        tuple[PayloadTable, ...], fields.Few, Field(description="one table for each package")
    ]

    def msvc(self) -> LockedMsvc:
        return LockedMsvc(
            **_shared(self, MsvcTools),
            payloads=tuple(table.payload() for table in self.payloads),
            channel=self.channel,
            catalogue=self.catalogue,
        )


@dataclass(frozen=True, kw_only=True)
class ToolchainFile(ToolchainKeys):
    """toolchains/NAME.toml."""

    builds: Annotated[
        tuple[TorchBuild, ...],
        fields.Few,
        Field(description="one table for each Python and torch"),
    ]
    default_torch: fields.OrEmpty[fields.Torch] = ""
    cuda_manifest: Url = ""
    cuda_files: Annotated[tuple[CudaTable, ...], fields.Many] = ()
    interpreters: Annotated[tuple[InterpreterTable, ...], fields.Few] = ()
    # Left out where there is none: digests of toolchains without it are in wheels.
    portable: Annotated[
        tuple[InterpreterTable, ...], fields.Few, Field(exclude_if=lambda found: not found)
    ] = ()
    msvc: MsvcTable | None = None

    def toolchain(self) -> Toolchain:
        return Toolchain(
            **_shared(self, ToolchainKeys),
            # What runs the compilers is none of them: wheels know toolchains by this.
            digest=_digest(_meaning(self, {"wine"})),
            builds=self.builds,
            default_torch=self.default_torch or self.builds[-1].torch,
            cuda_manifest=self.cuda_manifest,
            cuda_files=tuple(table.download(table.name) for table in self.cuda_files),
            interpreters=tuple(table.interpreter() for table in self.interpreters),
            portable=tuple(table.interpreter() for table in self.portable),
            msvc=self.msvc.msvc() if self.msvc else None,
        )


# -- both ------------------------------------------------------------------------------------------


def _shared(part: Table, kind: type[Table]) -> dict[str, Any]:
    """The values of the fields that a class has from this one."""
    return {one.name: getattr(part, one.name) for one in fields_of(kind)}


def _meaning(part: Table, leave_out: set[str] | None = None) -> dict[str, Any]:
    """What a file says, by TOML's keys; None where it leaves something out."""
    found: dict[str, Any] = fields.adapter(type(part)).dump_python(
        part, by_alias=True, context=fields.TOML, exclude=leave_out
    )
    return found


def _digest(said: dict[str, Any]) -> str:
    """sha256 over values, however they were written: sorted keys, no spaces."""
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
