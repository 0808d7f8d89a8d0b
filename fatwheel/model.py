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
    'runtime' (torch and the libraries that it loads), 'source' (a recipe's sdist) or 'subject'
    (what tests and the benchmark work on).
    """

    name: str
    version: str
    filename: str
    size: int
    sha256: str
    role: str


@dataclass(frozen=True)
class TorchBuild:
    """One torch for one Python: the wheels that differ from other Pythons' (torch, numpy …)."""

    torch: str
    python: str
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Toolchain:
    """Compilers, CUDA, Pythons and torches for one target platform (toolchains/NAME.toml).

    archs are those its nvcc knows. gcc is the closed range of major versions that its nvcc
    accepts as host compiler. packages serve every Python; builds hold the rest.
    digest is over the file's meaning, not its comments.
    """

    name: str
    platform: str
    cuda: str
    nvcc: str
    archs: tuple[Arch, ...]
    gcc: tuple[int, int]
    packages: tuple[Package, ...]
    builds: tuple[TorchBuild, ...]
    digest: str

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
    source:  path in the view, see `build.view`.
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
