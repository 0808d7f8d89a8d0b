"""The words of the design as frozen dataclasses; no behaviour beyond small derived values.

Sizes are bytes, times are seconds. Standard library only: imported inside build containers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .arch import Arch, ArchRequest


@dataclass(frozen=True)
class Package:
    """One pinned file of a package index, by name, size and sha256.

    role: 'compiler' (its bytes decide what code is made), 'build' (setuptools, ninja …),
    'runtime' (torch and the libraries that it loads), 'installer' (pip, which puts the others into
    an image; no part of an environment), 'source' (a recipe's sdist) or 'subject' (what tests and
    the benchmark work on).
    url:  where it lies, if that is not the user's own package index; else ''.
    A size of 0 or an empty sha256 is not known yet: `invoke lock` fills it in, and until then
    the file is not `locked` and is never used.
    hosts: None in this checkout's own files; of a pin in a lock from elsewhere, the only hosts
    that its url may name.
    """

    name: str
    version: str
    filename: str
    size: int
    sha256: str
    role: str
    url: str = ""
    hosts: frozenset[str] | None = field(default=None, compare=False)

    @property
    def locked(self) -> bool:
        return bool(self.size and self.sha256)


@dataclass(frozen=True)
class TorchBuild:
    """One torch for one Python: the wheels that differ from other Pythons' (torch, numpy …)."""

    torch: str
    python: str
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Download:
    """One pinned file that is no package: an archive of CUDA, an installer, an interpreter.

    size in bytes; 0 and an empty sha256, and hosts, are as for a Package. filename is what it is
    called on this machine and in an image's build context.
    """

    name: str
    version: str
    url: str
    filename: str
    size: int
    sha256: str
    hosts: frozenset[str] | None = field(default=None, compare=False)

    @property
    def locked(self) -> bool:
        return bool(self.size and self.sha256)


@dataclass(frozen=True)
class Interpreter:
    """A CPython that a toolchain installs into its images: `3.11`, and where it comes from."""

    python: str
    download: Download


@dataclass(frozen=True)
class Base:
    """An image to build on: a reference as `docker pull` takes it, and the digest it must have.

    digest is 'sha256:…', or '' until `invoke lock` has asked the registry. pythons are those
    that the image itself brings, for which the toolchain has no interpreter of its own.
    """

    reference: str
    digest: str
    pythons: tuple[str, ...]


@dataclass(frozen=True)
class Msvc:
    """The C++ compiler of a Windows toolchain.

    visual_studio: the release of the Build Tools (`17.8.2`). cl: what `cl` must say
    (`19.38.33130`). toolset: for `vcvars64.bat -vcvars_ver` (`14.38`). components: ids to install.
    """

    visual_studio: str
    cl: str
    toolset: str
    components: tuple[str, ...]
    bootstrapper: Download


@dataclass(frozen=True)
class Containers:
    """How a toolchain becomes container images.

    os: 'linux' or 'windows', as an engine's OSType says it. os_build: of Windows, the build
    number of the base (20348 for ltsc2022); 0 for Linux. bases: for a Python, the first that
    brings it; one without pythons serves every Python that `interpreters` install.
    """

    os: str
    os_build: int
    bases: tuple[Base, ...]


@dataclass(frozen=True)
class Toolchain:
    """Compilers, CUDA, Pythons and torches for one target platform (toolchains/NAME.toml).

    archs are those its nvcc knows. gcc is the closed range of major versions that its nvcc
    accepts as host compiler; None where msvc is the host compiler. packages serve every Python;
    builds hold the rest. cuda_files: CUDA where it does not come as packages. containers: None
    where no images can be made. default_torch: what is built against unless asked otherwise.
    cuda_manifest: URL of what NVIDIA says of the release that cuda_files are from, or ''.
    digest is over the file's meaning, not its comments.
    """

    name: str
    platform: str
    cuda: str
    nvcc: str
    archs: tuple[Arch, ...]
    gcc: tuple[int, int] | None
    packages: tuple[Package, ...]
    builds: tuple[TorchBuild, ...]
    digest: str
    default_torch: str
    cuda_files: tuple[Download, ...] = ()
    interpreters: tuple[Interpreter, ...] = ()
    msvc: Msvc | None = None
    containers: Containers | None = None
    cuda_manifest: str = ""

    @property
    def runs_in_processes(self) -> bool:
        """Whether all of it comes as packages, so that no container is needed."""
        return not (self.cuda_files or self.interpreters or self.msvc)

    @property
    def pythons(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(build.python for build in self.builds))

    @property
    def torches(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(build.torch for build in self.builds))


@dataclass(frozen=True)
class Environment:
    """A toolchain installed for one Python and one torch, ready to compile with.

    root:         folder that holds it all; its name is a digest of what is in it.
    python:       its interpreter.
    site:         its site-packages.
    cuda_home:    what CUDA_HOME must be.
    include:      the folder of Python.h.
    compiler_id:  digest of the packages whose role is 'compiler'.
    """

    root: Path
    python: Path
    site: Path
    cuda_home: Path
    include: Path
    python_version: str
    torch: str
    compiler_id: str


@dataclass(frozen=True)
class Host:
    """What of the machine, or of the image, reaches a wheel.

    compiler: `g++ 12.2.0`; compiler_id: digest of what it is made of. python: `3.11.7`.
    """

    compiler: str
    compiler_id: str
    python: str


@dataclass(frozen=True)
class Material:
    """One thing that went into a build, and its sha256.

    role: as a Package's, or 'cuda', 'interpreter', 'msvc', 'image', 'host'. filename and url may
    be '', size 0 where there is none.
    """

    role: str
    name: str
    version: str
    filename: str
    size: int
    sha256: str
    url: str


@dataclass(frozen=True)
class Source:
    """Where a recipe's code comes from: a pinned sdist, or a folder beside the recipe.

    Exactly one of `package` and `folder` is set.
    """

    package: Package | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Cost:
    """A recipe's word on what units cost, before anything was measured.

    units is a glob over unit names; memory in bytes, seconds per architecture.
    """

    units: str
    memory: int
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """One upstream project (kernels/NAME/recipe.toml).

    project, version: of the wheel, as upstream's METADATA says them.
    environment:      variables set for upstream's build.
    imports:          modules that must import from the finished wheel, in this order.
    stub_commands:    commands that upstream's build calls without need (`git`): each must be
                      replaced on its PATH by one that does nothing and succeeds.
    runtime:          wheels besides torch that its modules import.
    verify:           the script that checks an installed wheel on a GPU, if there is one.
    memory, seconds:  of one job, where no cost below fits; of several costs the first counts.
    epoch:            seconds since 1970 for every time in the wheel, unless SOURCE_DATE_EPOCH.
    digest:           over the file's meaning, and over the sources where they lie beside it.
    """

    name: str
    project: str
    version: str
    source: Source
    archs: tuple[str, ...]
    environment: dict[str, str]
    imports: tuple[str, ...]
    memory: int
    seconds: float
    costs: tuple[Cost, ...]
    epoch: int
    folder: Path
    digest: str
    subdirectory: str = ""
    stub_commands: tuple[str, ...] = ()
    runtime: tuple[Package, ...] = ()
    verify: Path | None = None


@dataclass(frozen=True)
class Target:
    """One wheel to make."""

    recipe: Recipe
    toolchain: Toolchain
    python: str
    torch: str
    archs: tuple[ArchRequest, ...]


@dataclass(frozen=True)
class Unit:
    """One translation unit of the upstream build, as its command line was captured.

    name:    object path inside the project, without suffix: `csrc/flash_fwd_hdim32_sm80`.
    kind:    'cuda' (compiled by nvcc) or 'c++' (by the host compiler).
    source:  path in the view, see `worker.view`.
    codegen: arguments that decide what code is made; no paths, no architectures.
    preprocessor: -D, -U, -I, -isystem, -include, paths as in the view.
    """

    name: str
    kind: str
    source: str
    codegen: tuple[str, ...]
    preprocessor: tuple[str, ...]


@dataclass(frozen=True)
class Front:
    """One run of nvcc's front end and the images made from it.

    virtual is the architecture of the front; codes are real (`sm_80`) or virtual
    (`compute_80`: its PTX) architectures made from it, in nvcc's order.
    """

    virtual: Arch
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One compiler call: a unit, the front to run, and whether its host object is wanted too.

    For a 'c++' unit front is None and host is true.
    """

    unit: Unit
    front: Front | None
    host: bool
    memory: int
    seconds: float

    @property
    def label(self) -> str:
        if self.front is None:
            return self.unit.name
        return f"{self.unit.name} [{','.join(self.front.codes)}]"


@dataclass(frozen=True)
class Shard:
    """The jobs that one worker does."""

    name: str
    jobs: tuple[Job, ...] = field(default=())
