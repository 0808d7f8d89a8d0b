"""Recipes, as kernels/NAME/recipe.toml, locks and code tell of them (`pinned` says how); and
targets: a recipe with what it is built with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from packaging.specifiers import SpecifierSet
from pydantic import Field

from ..arch import ArchRequest
from ..machine import system_of
from . import fields
from .pinned import Download, Folder, Package, Sdist, Sha256, Table
from .toolchain import Toolchain

# Of one job, where neither a recipe nor a measurement says it.
USUAL_MEMORY, USUAL_SECONDS = 4 * 2**30, 120.0


@dataclass(frozen=True, kw_only=True)
class Commit(Table):
    """A commit of a git repository, and the tree that it must have.

    hosts: as for a Package.
    """

    url: Annotated[fields.Url, Field(description="the repository's URL")]
    commit: Annotated[fields.GitId, Field(description="the commit's id")]
    tree: Annotated[fields.GitId, Field(description="the id of the commit's tree")]
    hosts: fields.Here[frozenset[str] | None] = field(default=None, compare=False)

    @property
    def vcs_url(self) -> str:
        """As pip and package URLs write it."""
        return f"git+{self.url}@{self.commit}"


@dataclass(frozen=True, kw_only=True)
class Submodule(Commit):
    """path: where it lies in the project, whatever repository it is a submodule of."""

    path: Annotated[fields.Folder, Field(description="its folder in the project")]


@dataclass(frozen=True, kw_only=True)
class Repository(Commit):
    submodules: Annotated[tuple[Submodule, ...], fields.Few] = ()

    @property
    def commits(self) -> tuple[Commit, ...]:
        """All that is fetched; a submodule comes after those in whose folders it lies."""
        return (self, *sorted(self.submodules, key=lambda one: one.path))

    @property
    def sha256(self) -> str:
        """Over all that says what the code is, and not where it is fetched from."""
        inner = [[one.path, one.commit, one.tree] for one in self.submodules]
        text = json.dumps([self.commit, self.tree, *sorted(inner)])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Patch(Table):
    """A file beside the recipe. sha256: its own."""

    file: fields.PatchFile
    sha256: fields.Sha256


def _is_nothing(value: object) -> bool:
    return not value


@dataclass(frozen=True)
class SourcePin(Table):
    """Where a recipe's code comes from: a pinned sdist or archive, a commit of a git repository, a
    folder beside the recipe, or a checkout, which is a folder anywhere on one machine.

    Of `package`, `archive`, `git`, `folder` and `checkout` exactly one is set. sha256: of the sdist
    or archive, over the commits of `git`, or over the folder's or the checkout's files. patches:
    applied in this order. Locks leave out what is not there.

    path: where a checkout is.
    """

    package: Sdist | None = None
    folder: Folder = ""
    sha256: Sha256 = ""
    archive: Annotated[Download | None, Field(exclude_if=_is_nothing)] = None
    git: Annotated[Repository | None, Field(exclude_if=_is_nothing)] = None
    checkout: Annotated[fields.Flag, Field(exclude_if=_is_nothing)] = False
    patches: Annotated[tuple[Patch, ...], fields.Few, Field(exclude_if=_is_nothing)] = ()
    path: fields.Here[Path | None] = None

    @property
    def file(self) -> Package | Download | None:
        """The one file that has it all."""
        return self.package or self.archive

    @property
    def kinds(self) -> int:
        """How many of the five are set."""
        found = (self.package, self.archive, self.git, self.folder, self.checkout)
        return sum(map(bool, found))


@dataclass(frozen=True)
class Cost(Table):
    """A recipe's word on what units cost, before anything was measured.

    units is a glob over unit names; memory in bytes, seconds per architecture.
    """

    units: Annotated[fields.Pattern, Field(description="a pattern of unit names, as in '*_bwd_*'")]
    memory: fields.OrZero[fields.Size]
    seconds: fields.OrZero[fields.Seconds]


@dataclass(frozen=True)
class UnitArchs(Table):
    """For which architectures units are, whatever the project's own options say.

    units is a glob over unit names. archs: `80` stands for all that run code for it, `80+ptx` for
    newer ones too; () for all that are asked for. The first pattern that fits a unit counts.
    """

    units: Annotated[fields.Pattern, Field(description="a pattern of unit names, as in '*_sm90*'")]
    archs: Annotated[tuple[fields.RequestedArch, ...], fields.Few] = ()


@dataclass(frozen=True, kw_only=True)
class Flags(Table):
    """Options that compilers get behind those of the project, where a target is as said.

    torch: a range of versions (PEP 440), '' for all. system: 'linux', 'windows' or '' for both.
    nvcc: for nvcc's commands. cxx: for those of g++ or cl.
    """

    torch: fields.OrEmpty[fields.VersionRange] = ""
    system: fields.OrEmpty[fields.Os] = ""
    nvcc: Annotated[tuple[fields.Option, ...], fields.Few] = ()
    cxx: Annotated[tuple[fields.Option, ...], fields.Few] = ()

    def fits(self, torch: str, platform: str) -> bool:
        """Whether a target is as said. torch: its version, `2.11.0`. platform: `linux-x86_64`."""
        allowed = SpecifierSet(self.torch).contains(torch, prereleases=True)
        return allowed and self.system in ("", system_of(platform))


@dataclass(frozen=True, kw_only=True)
class RecipeKeys(Table):
    """What a recipe's file and a lock both say, in the same way.

    project, version: of the wheel, as upstream's METADATA says them.
    imports:          modules that must import from the finished wheel, in this order.
    environment:      variables set for upstream's build.
    stub_commands:    commands that upstream's build calls without need (`git`): each must be
                      replaced on its PATH by one that does nothing and succeeds.
    unit:             for which architectures units are.
    config_settings:  what a front end of PEP 517 would give to the project's back end.
    pretend:          '' or the compute capability of a GPU that torch seems to have meanwhile.
    flags:            options for compilers, behind the project's own.
    """

    project: Annotated[
        fields.Project, Field(description="the project's name, as its METADATA has it")
    ]
    version: Annotated[
        fields.PublicVersion, Field(description="its version, as its METADATA has it")
    ]
    imports: Annotated[
        tuple[fields.Module, ...],
        fields.Few,
        Field(description="the modules that must import from the finished wheel"),
    ]
    subdirectory: Folder = ""
    environment: Annotated[dict[fields.Variable, fields.Value], fields.Few] = field(
        default_factory=dict
    )
    stub_commands: Annotated[tuple[fields.Command, ...], fields.Few] = ()
    # Left out where there is none: it is in locks, and digests of recipes without it in wheels.
    unit: Annotated[
        tuple[UnitArchs, ...], fields.Many, Field(exclude_if=lambda found: not found)
    ] = ()
    config_settings: Annotated[
        dict[fields.Setting, fields.Value], fields.Few, Field(exclude_if=lambda found: not found)
    ] = field(default_factory=dict)
    pretend: Annotated[
        fields.OrEmpty[fields.Capability], Field(exclude_if=lambda found: not found)
    ] = ""
    flags: Annotated[tuple[Flags, ...], fields.Few, Field(exclude_if=lambda found: not found)] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe(RecipeKeys):
    """One upstream project (kernels/NAME/recipe.toml).

    epoch:            seconds since 1970 for every time in the wheel, unless SOURCE_DATE_EPOCH.
    runtime:          wheels besides torch that its modules import.
    build:            wheels besides the toolchain's that its build needs; of a target those that
                      fit it.
    digest:           over the file's meaning, and over the sources where they lie beside it.

    What a lock leaves out, for it decides nothing about a wheel:

    requires:         what its build needs that its pyproject.toml does not say.
    verify:           the script that checks an installed wheel on a GPU, if there is one.
    memory, seconds:  of one job, where no cost below fits; of several costs the first counts.
    """

    name: fields.Name
    digest: fields.Sha256
    source: SourcePin
    epoch: fields.AnyEpoch
    runtime: Annotated[tuple[Package, ...], fields.Few] = ()
    build: Annotated[tuple[Package, ...], fields.Few, Field(exclude_if=_is_nothing)] = ()
    requires: fields.Here[tuple[str, ...]] = ()
    folder: fields.Here[Path] = Path()
    archs: fields.Here[tuple[str, ...]] = ()
    memory: fields.Here[int] = USUAL_MEMORY
    seconds: fields.Here[float] = USUAL_SECONDS
    costs: fields.Here[tuple[Cost, ...]] = ()
    verify: fields.Here[Path | None] = None

    @property
    def rules(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Its word on units, as workers read it (`worker.archs.Rules`)."""
        return tuple((one.units, one.archs) for one in self.unit)

    @property
    def source_folder(self) -> Path | None:
        """Where the sources lie that are beside the recipe."""
        return self.folder / self.source.folder if self.source.folder else None

    @property
    def files(self) -> tuple[Package | Download, ...]:
        """Every file that is pinned."""
        return (*((self.source.file,) if self.source.file else ()), *self.runtime)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where its files and repositories are, as far as they have URLs."""
        commits = self.source.git.commits if self.source.git else ()
        return tuple(one.url for one in (*self.files, *commits) if one.url)


@dataclass(frozen=True)
class Target:
    """One wheel to make."""

    recipe: Recipe
    toolchain: Toolchain
    python: str
    torch: str
    archs: tuple[ArchRequest, ...]

    @property
    def tools(self) -> Toolchain:
        """The toolchain without what is for other targets."""
        return self.toolchain.only(self.python, self.torch)

    @property
    def flags(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What the recipe adds to compilers' commands for this target, as workers read it: for the
        tools 'nvcc', 'g++' and 'cl'."""
        tables = [one for one in self.recipe.flags if one.fits(self.torch, self.toolchain.platform)]
        nvcc = tuple(word for one in tables for word in one.nvcc)
        cxx = tuple(word for one in tables for word in one.cxx)
        return tuple(
            (tool, words) for tool, words in (("nvcc", nvcc), ("g++", cxx), ("cl", cxx)) if words
        )
