"""Toolchains, as files of toolchains/, locks and code tell of them (`pinned` says how)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..model import Environment
from . import fields
from .mistakes import Key
from .pinned import DebianFile, Digest, Download, Package, Packages, Table


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
