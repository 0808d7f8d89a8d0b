"""Recipes, toolchains and targets: each thing that files and code tell of, typed once.

These are the types of TOML files (`schema` adds the shapes that only TOML has), of locks
(`provenance.lock`) and of code. pydantic reads and writes them by their annotations. Code that
makes one is not checked. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from packaging.specifiers import SpecifierSet
from pydantic import ConfigDict, Field

from ..arch import ArchRequest
from ..machine import system_of
from ..model import Environment
from . import fields
from .mistakes import Key

# Of one job, where neither a recipe nor a measurement says it.
USUAL_MEMORY, USUAL_SECONDS = 4 * 2**30, 120.0

# What `invoke lock` has not filled in yet, and sizes that nobody publishes, are 0 or ''.
Size = fields.OrZero[fields.Bytes]
Sha256 = fields.OrEmpty[fields.Sha256]
Url = fields.OrEmpty[fields.Url]
Digest = fields.OrEmpty[fields.Digest]
Folder = fields.OrEmpty[fields.Folder]


@dataclass(frozen=True)
class Table:
    """A table of TOML, an object of JSON: no key but its fields, no value of another type."""

    # The aliases are for TOML, which is read with by_alias.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", validate_by_name=True, validate_by_alias=False
    )


# -- files -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PinnedWheel(Table):
    """A wheel as recipes name it.

    An empty sha256 is not known yet: `invoke lock` fills it in, and until then the file is not
    `locked` and is never used. A size of 0 is not known either; some indexes publish none.
    """

    name: Annotated[fields.Project, Field(description="the package's name")]
    version: Annotated[fields.AnyVersion, Field(description="the package's version")]
    filename: Annotated[
        fields.WheelFile,
        Field(
            validation_alias="file",
            serialization_alias="file",
            description="the wheel's file name, as the index lists it",
        ),
    ]
    size: Annotated[Size, Field(description="the wheel's size in bytes")]
    sha256: Annotated[Sha256, Field(description="the wheel's sha256")]

    @property
    def locked(self) -> bool:
        return bool(self.sha256)


@dataclass(frozen=True)
class Package(PinnedWheel):
    """One pinned file of a package index, by name, size and sha256.

    role: 'compiler' (its bytes decide what code is made), 'build' (setuptools, ninja …),
    'runtime' (torch and the libraries that it loads), 'installer' (pip, which puts the others into
    an image; no part of an environment), 'source' (a recipe's sdist) or 'subject' (what tests and
    the benchmark work on).
    url:  where it lies, if that is not the user's own package index; else ''.
    hosts: None in this checkout's own files; of a pin in a lock from elsewhere, the only hosts
    that its url may name.
    """

    role: Annotated[fields.Role, Field(description="'compiler', 'build', 'runtime' or 'installer'")]
    url: Url = ""
    hosts: fields.Here[frozenset[str] | None] = field(default=None, compare=False)


@dataclass(frozen=True)
class Sdist(Package):
    """A source distribution, which is a package's file, too."""

    filename: fields.SdistFile
    role: fields.SourceRole


@dataclass(frozen=True)
class Download(Table):
    """One pinned file that is no package: an archive of CUDA, a part of MSVC, an interpreter.

    size, sha256 and hosts are as for a Package. version and url may be '' until they are known, as
    those may. filename is what it is called on this machine and
    in an image's build context.
    """

    name: fields.PartName
    version: fields.OrEmpty[fields.AnyVersion]
    url: Url
    filename: fields.File
    size: Size
    sha256: Sha256
    hosts: fields.Here[frozenset[str] | None] = field(default=None, compare=False)

    @property
    def locked(self) -> bool:
        return bool(self.sha256)


@dataclass(frozen=True)
class DebianFile(Download):
    """A package of Debian, on whatever mirror the user's own configuration names. path: there."""

    path: str = ""


Packages = Annotated[tuple[Package, ...], fields.Many]


# -- toolchains ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TorchBuild(Table):
    """One torch for one Python: the wheels that differ from other Pythons' (torch, numpy …)."""

    torch: Annotated[fields.Torch, Field(description="a torch, as in '2.11.0'")]
    python: Annotated[fields.Python, Field(description="a Python, as in '3.11'")]
    packages: Annotated[Packages, Field(description="the wheels that only this build has")]


@dataclass(frozen=True)
class LockedInterpreter(Table):
    """A CPython of a toolchain: `3.11`, and where it comes from."""

    python: fields.Python
    download: Download


@dataclass(frozen=True)
class Base(Table):
    """An image to build on: a reference as `docker pull` takes it, and the digest it must have.

    digest is 'sha256:…', or '' until `invoke lock` has asked the registry. pythons are those
    that the image itself brings, for which the toolchain has no interpreter of its own.
    """

    reference: Annotated[
        fields.Reference, Field(description="an image, as in 'python:3.11-bookworm'")
    ]
    digest: Digest
    pythons: Annotated[tuple[fields.Python, ...], fields.Few, Field(default=())]


@dataclass(frozen=True)
class MsvcTools(Table):
    """visual_studio: the release that it comes with (`17.8.2`). cl: what `cl` must say
    (`19.38.33130`). license: where the terms stand that its user has to accept.
    """

    visual_studio: Annotated[fields.Release, Field(description="its release, as in '17.8.2'")]
    cl: Annotated[fields.Release, Field(description="what cl says, as in '19.38.33130'")]
    toolset: Annotated[fields.Toolset, Field(description="the compiler's, as in '14.38'")]
    license: Annotated[fields.Url, Field(description="where Microsoft's terms stand")]

    @property
    def msc_ver(self) -> int:
        """`1938` for toolset 14.38, as Microsoft counts _MSC_VER."""
        return 1900 + int(self.toolset.partition(".")[2])


@dataclass(frozen=True)
class Document(Table):
    """What Microsoft says of a release of Visual Studio, in a file whose sha256 is known."""

    url: Annotated[fields.Url, Field(description="where it is")]
    sha256: Annotated[fields.Sha256, Field(description="its sha256")]


@dataclass(frozen=True)
class InstalledFile(Table):
    """A program of an installed compiler, or a library or folder that its programs read."""

    name: fields.InstalledFile
    sha256: fields.Sha256


@dataclass(frozen=True, kw_only=True)
class InstalledMsvc(Table):
    """The MSVC and the Windows SDK of one machine, which stand where others have packages.

    sdk: the SDK's version, as in `10.0.26100.0`. files: what of it decides which code is made.

    What only that machine knows, and no lock: folder: the Visual Studio. links: folders below the
    home of an unpacked MSVC (`provision.msvc`), and those that they are links to.
    """

    sdk: fields.Release
    files: Annotated[tuple[InstalledFile, ...], fields.Few]
    folder: fields.Here[Path] = Path()
    links: fields.Here[tuple[tuple[str, Path], ...]] = ()


@dataclass(frozen=True)
class LockedMsvc(MsvcTools):
    """The C++ compiler of a Windows toolchain, with a Windows SDK.

    payloads: the packages that are unpacked to it. channel: names the catalogue; catalogue: lists
    all packages of the release, for `invoke lock`. installed: that of a machine, beside which there
    are no packages.
    """

    payloads: Annotated[tuple[Download, ...], fields.Few]
    channel: fields.Here[Document | None] = None
    catalogue: fields.Here[Document | None] = None
    installed: Annotated[InstalledMsvc | None, Field(exclude_if=lambda one: one is None)] = None


@dataclass(frozen=True)
class Containers(Table):
    """How a toolchain becomes container images.

    os: 'linux' or 'windows', as an engine's OSType says it. os_build: of Windows, the build
    number of the base (20348 for ltsc2022); 0 for Linux. bases: for a Python, the first that
    brings it; one without pythons serves every Python that `interpreters` install.
    """

    os: Annotated[fields.Os, Field(description="'linux' or 'windows'")]
    os_build: fields.OrZero[fields.OsBuild]
    bases: Annotated[tuple[Base, ...], fields.Few, Field(description="the images to build on")]


@dataclass(frozen=True)
class DebianPackage(Table):
    """A package of Debian, by its place on every mirror."""

    path: Annotated[
        fields.DebianPath,
        Field(description="its place on mirrors, as in 'pool/main/w/wine/wine64_8.0-4_amd64.deb'"),
    ]
    size: Annotated[fields.Bytes, Field(description="its size in bytes")]
    sha256: Annotated[fields.Sha256, Field(description="its sha256")]

    def file(self) -> DebianFile:
        name = self.path.rpartition("/")[2]
        # Blanks of no kind, and nothing that a shell would take for a home.
        filename = name.replace("~", "-")
        label = name.partition("_")[0]
        return DebianFile(label, "", "", filename, self.size, self.sha256, path=self.path)


@dataclass(frozen=True, kw_only=True)
class WineImage(Table):
    """What the Linux image is made of in which toolchains for Windows build by Wine.

    version: what Wine says of itself. packages: Debian's, unpacked on the base, of which no script
    is run.
    """

    version: Annotated[fields.Release, Field(description="what Wine says, as in '8.0'")]
    base: Annotated[Base, Field(description="the image to build on, a table: reference, digest")]
    packages: Annotated[
        tuple[DebianPackage, ...], fields.Few, Field(description="one table for each package")
    ]

    @property
    def files(self) -> tuple[DebianFile, ...]:
        return tuple(package.file() for package in self.packages)


@dataclass(frozen=True, kw_only=True)
class InstalledTools(Table):
    """The CUDA and the torch of one machine, which stand where other toolchains have pins.

    torch: in full, as in `2.8.0+cu128`; torch_cuda: the CUDA that it was built for. files: what of
    this CUDA decides which code is made.

    What only that machine knows, and no lock: cuda_home: the folder that the user named.
    environment: what is compiled with. links: names below the environment's CUDA home, and what
    each is a link to, where that home is made of links; else nothing.
    """

    torch: fields.AnyVersion
    torch_cuda: fields.Release
    files: Annotated[tuple[InstalledFile, ...], fields.Few]
    cuda_home: fields.Here[Path] = Path()
    environment: fields.Here[Environment | None] = None
    links: fields.Here[tuple[tuple[str, Path], ...]] = ()

    @property
    def compiler_id(self) -> str:
        """sha256 over all that decides device code."""
        lines = sorted(f"{one.name} {one.sha256}" for one in self.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ToolchainKeys(Table):
    """What a toolchain's file and a lock both say, in the same way."""

    name: Annotated[fields.Label, Field(description="the file's name without .toml")]
    platform: Annotated[fields.Platform, Field(description="the target, as in 'linux-x86_64'")]
    cuda: Annotated[fields.Release, Field(description="CUDA's version, as in '13.0'")]
    nvcc: Annotated[fields.Release, Field(description="nvcc's version, as in '13.0.88'")]
    archs: Annotated[
        tuple[fields.Arch, ...],
        fields.Few,
        Field(description="the GPU architectures that its nvcc knows"),
    ]
    gcc: fields.Majors | None = None
    packages: Annotated[Packages, Field(description="the wheels that every build has")]
    containers: Containers | None = None
    wine: Annotated[WineImage | None, Field(exclude_if=lambda one: one is None)] = None


@dataclass(frozen=True, kw_only=True)
class Toolchain(ToolchainKeys):
    """Compilers, CUDA, Pythons and torches for one target platform (toolchains/NAME.toml).

    archs are those its nvcc knows. gcc is the closed range of major versions that its nvcc
    accepts as host compiler; None where msvc is the host compiler. packages serve every Python;
    builds hold the rest. cuda_files: CUDA where it does not come as packages. containers: None
    where no images can be made. wine: of a toolchain for Windows, the Linux image that has a Wine.
    default_torch: what is built against unless asked otherwise.
    cuda_manifest: URL of what NVIDIA says of the release that cuda_files are from, or ''.
    interpreters are installed into images; portable are the CPythons that need no installation,
    with which processes build for Windows (see `toolchain.windows`).
    installed: the CUDA and torch of a machine, beside which there are no pins. Locks leave it out
    where it is None. digest is over the file's meaning, not its comments.
    device_packages: of a toolchain for Windows, packages with CUDA's compilers of the same version
    for Linux, where those are to make device code of what the front end leaves.
    """

    digest: fields.Sha256
    cuda_files: Annotated[tuple[Download, ...], fields.Many] = ()
    interpreters: Annotated[tuple[LockedInterpreter, ...], fields.Few] = ()
    portable: Annotated[
        tuple[LockedInterpreter, ...], fields.Few, Field(exclude_if=lambda found: not found)
    ] = ()
    msvc: LockedMsvc | None = None
    installed: Annotated[InstalledTools | None, Field(exclude_if=lambda one: one is None)] = None
    device_packages: Annotated[Packages, Field(exclude_if=lambda found: not found)] = ()
    builds: fields.Here[tuple[TorchBuild, ...]] = ()
    default_torch: fields.Here[str] = ""
    cuda_manifest: fields.Here[str] = ""

    @property
    def brings_all(self) -> bool:
        """Whether its C++ compiler and its Pythons are among its files; else, a machine on which
        processes build must have them."""
        return self.msvc is not None

    @property
    def of_a_machine(self) -> str:
        """What of it one machine had installed, and so nobody can fetch; '' where all is pinned."""
        if self.installed:
            return f"nvcc {self.nvcc}, torch {self.installed.torch}"
        if self.msvc and self.msvc.installed:
            studio, sdk = self.msvc.visual_studio, self.msvc.installed.sdk
            return f"MSVC of Visual Studio {studio}, Windows SDK {sdk}"
        return ""

    @property
    def pythons(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(build.python for build in self.builds))

    @property
    def torches(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(build.torch for build in self.builds))

    @property
    def bases(self) -> tuple[Base, ...]:
        """Every image that is built on."""
        own = self.containers.bases if self.containers else ()
        return (*own, self.wine.base) if self.wine else own

    @property
    def files(self) -> tuple[Package | Download, ...]:
        """Every file that is pinned, once."""
        return tuple(dict.fromkeys(pin for _, pin in self.pins() if not isinstance(pin, Base)))

    @property
    def image_files(self) -> tuple[Package | Download, ...]:
        """Those that images are made of."""
        return tuple(file for file in self.files if file not in _downloads(self.portable))

    @property
    def process_files(self) -> tuple[Package | Download, ...]:
        """Those that processes build with: images alone need interpreters, and pip."""
        return tuple(
            file
            for file in self.files
            if file not in _downloads(self.interpreters)
            and getattr(file, "role", "") != "installer"
        )

    def pins(self) -> Iterator[tuple[Key, Package | Download | Base]]:
        """Everything that is pinned, with its place in the toolchain's file."""
        if self.msvc:
            for number, file in enumerate(self.msvc.payloads):
                yield ("msvc", "payloads", number), file
        for number, base in enumerate(self.containers.bases if self.containers else ()):
            yield ("containers", "bases", number), base
        if self.wine:
            yield ("wine", "base"), self.wine.base
        for number, file in enumerate(self.cuda_files):
            yield ("cuda_files", number), file
        for number, interpreter in enumerate(self.interpreters):
            yield ("interpreters", number), interpreter.download
        for number, interpreter in enumerate(self.portable):
            yield ("portable", number), interpreter.download
        for number, package in enumerate(self.packages):
            yield ("packages", number), package
        for number, package in enumerate(self.device_packages):
            yield ("device_packages", number), package
        for outer, build in enumerate(self.builds):
            for number, package in enumerate(build.packages):
                yield ("builds", outer, "packages", number), package

    def usual_python(self, running: str) -> str:
        """What is built for unless asked otherwise: the Python that runs, or the newest."""
        return running if running in self.pythons else self.pythons[-1]

    def torches_for(self, *pythons: str) -> tuple[str, ...]:
        """Those that there are for all of these."""
        pairs = {(build.torch, build.python) for build in self.builds}
        return tuple(t for t in self.torches if all((t, python) in pairs for python in pythons))

    def usual_torch(self, *pythons: str) -> str:
        """What is built against for all of these unless asked otherwise."""
        torches = self.torches_for(*pythons)
        return self.default_torch if self.default_torch in torches else torches[-1]

    def base_for(self, python: str) -> Base | None:
        """The first image that brings a Python, or on which it is installed."""
        own = [interpreter.python for interpreter in self.interpreters]
        for base in self.containers.bases if self.containers else ():
            if python in (base.pythons or own):
                return base
        return None

    def only(self, python: str, torch: str) -> Toolchain:
        """The toolchain without what is for other targets. All interpreters stay: they are in one
        image."""
        wanted, base = (torch, python), self.base_for(python)
        bases = (base,) if base else ()
        return replace(
            self,
            builds=tuple(one for one in self.builds if (one.torch, one.python) == wanted),
            portable=tuple(one for one in self.portable if one.python == python),
            containers=self.containers and replace(self.containers, bases=bases),
            default_torch=torch,
            cuda_manifest="",
            msvc=self.msvc and replace(self.msvc, channel=None, catalogue=None),
        )


def _downloads(interpreters: tuple[LockedInterpreter, ...]) -> list[Download]:
    return [one.download for one in interpreters]


@dataclass(frozen=True)
class Cell:
    """One toolchain with one of its Pythons and torches."""

    toolchain: Toolchain
    python: str
    torch: str


# -- recipes ---------------------------------------------------------------------------------------


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


# -- targets ---------------------------------------------------------------------------------------


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
