"""What crosses into a worker, as frozen dataclasses: units, jobs, and where they are compiled.

Sizes are bytes, times are seconds. Standard library only: imported inside build containers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .arch import Arch


@dataclass(frozen=True)
class Environment:
    """A toolchain installed for one Python and one torch, ready to compile with.

    root:         folder that holds it; its name is a digest of what is in it, and of CUDA.
    python:       its interpreter.
    site:         its site-packages.
    cuda_home:    what CUDA_HOME must be: below site, or elsewhere where it comes as archives.
    include:      the folder of Python.h.
    compiler_id:  digest of the packages whose role is 'compiler', and of CUDA's archives.
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
class Unit:
    """One translation unit of the upstream build, as its command line was captured.

    name:    object path inside the project, without suffix: `csrc/flash_fwd_hdim32_sm80`.
    kind:    'cuda' (compiled by nvcc) or 'c++' (by the host compiler).
    source:  path in the view, see `worker.view`.
    codegen: arguments that decide what code is made; no paths, no architectures.
    preprocessor: -D, -U, -I, -isystem, -include, paths as in the view.
    own:     images that the project's own command asks for; () where it names none.
    images:  None where it is compiled for all that is asked of the build, with the build's fronts;
             else those of them that it is compiled for, each architecture with an exact front: ()
             for none, so that only its host object is used (see `worker.archs`).
    """

    name: str
    kind: str
    source: str
    codegen: tuple[str, ...]
    preprocessor: tuple[str, ...]
    own: tuple[str, ...] = ()
    images: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Front:
    """One run of nvcc's front end and the images made from it.

    virtual is the architecture of the front; codes are real (`sm_80`) or virtual
    (`compute_80`: its PTX) architectures made from it, in nvcc's order. split: in how many parts
    nvcc's optimisers divide the code (`--split-compile`), which decides bytes; 0 where they do not.
    """

    virtual: Arch
    codes: tuple[str, ...]
    split: int = 0

    @property
    def key(self) -> str:
        """What of it decides code, for keys of the store: `80`, `80 split 4`."""
        return f"{self.virtual.name} split {self.split}" if self.split else self.virtual.name

    @property
    def images(self) -> tuple[str, ...]:
        """What nvcc is told to make: it makes one image at least."""
        return self.codes or (self.virtual.compute,)

    @property
    def gencode(self) -> str:
        """The same, as the value of nvcc's -gencode."""
        return f"arch={self.virtual.compute},code=[{','.join(self.images)}]"


# What a job does of a CUDA unit: all of an nvcc call ("whole"), or only its front end, which leaves
# PTX in the store; ptxas on that PTX; or what the host compiler makes with the front's stub.
Stage = Literal["whole", "front", "ptxas", "host"]


@dataclass(frozen=True)
class Job:
    """One compiler call, or a stage of one: a unit, the front, and whether its host object is
    wanted.

    For a 'c++' unit front is None and host is true. The codes of a job's front are the images that
    it makes: of a stage 'front' only PTX, of 'host' none.
    """

    unit: Unit
    front: Front | None
    host: bool
    memory: int
    seconds: float
    stage: Stage = "whole"

    @property
    def label(self) -> str:
        if self.front is None:
            return self.unit.name
        if self.stage == "whole":
            return f"{self.unit.name} [{','.join(self.front.codes)}]"
        if self.stage == "ptxas":
            return f"{self.unit.name} [{','.join(self.front.codes)}] ptxas"
        return f"{self.unit.name} [{self.front.virtual.compute}] {self.stage}"


@dataclass(frozen=True)
class Shard:
    """The jobs that one worker does."""

    name: str
    jobs: tuple[Job, ...] = field(default=())
