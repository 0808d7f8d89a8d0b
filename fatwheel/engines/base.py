"""The protocol of engines, and how a machine is divided among the workers of a build.

An `Engine` gets ready what a target is built with, a `Workplace`. There the target is captured, and
the `Capture` opens workers for its shards and assembles its wheel. Which engines there are, the
registry knows (`engines.registry`); what is done in which order, the pipeline does.

Workers share the build's memory and slots: jobs are admitted one by one, over all workers
(`engines.schedule`). Where a worker is a container it has a hard limit too. All limits of the
workers that are open at a time fit into the memory of the build; so where the machine is small,
fewer are open at a time, and each has what its largest job needs.
"""

from __future__ import annotations

import platform
import re
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar, Protocol, TypeVar

from ..config.pinned import Download, Package
from ..config.recipe import Recipe, Target
from ..config.toolchain import Toolchain
from ..errors import FatwheelError, OutOfMemoryError, UpstreamError
from ..events import Emit
from ..model import Front, Host, Job, Shard, Unit
from ..provenance.lock import Material
from ..storage.cache import Stores
from ..storage.store import Store, StoreEntry
from ..worker.assemble import Lookup, SliceDigests
from ..worker.secondkey import OFF
from ..worker.slices import Made
from ..worker.upstream import Project

_SEEDED_SINCE = (12, 9)  # the first CUDA whose nvcc has -frandom-seed

# A container's limit also counts its Python, its temporary files and some of its page cache.
_ROOM = 1.25
_BASE = 256 << 20  # bytes


@dataclass(frozen=True)
class Limits:
    """What one worker may use: processors, and bytes of memory."""

    cpus: int
    memory: int


@dataclass(frozen=True)
class Allotment:
    """at_once: workers that may be open at a time. each: the limits of one of them.
    whole: those of a worker that is alone."""

    at_once: int
    each: Limits
    whole: Limits


def allot(shards: int, largest: int, slots: int, memory: int) -> Allotment:
    """Divide `memory` bytes among as many workers as can run their largest job (bytes) in it."""
    need = int(largest * _ROOM) + _BASE
    at_once = max(1, min(shards, memory // need))
    return Allotment(at_once, Limits(slots, memory // at_once), Limits(slots, memory))


# -- workers and what they report ------------------------------------------------------------------

# A shard's worker takes jobs at any time and reports each outcome to the queue it was opened with.
# Workers decide nothing: `engines.run` does.


@dataclass(frozen=True)
class JobMade:
    """The job is done; entries: what it put into the store."""

    job: Job
    made: Made
    entries: tuple[StoreEntry, ...] = ()


@dataclass(frozen=True)
class JobKilled:
    """The compiler was killed for memory, at a peak of rss bytes.

    limit: the bytes that its worker may have, 0 where it has no limit of its own.
    """

    job: Job
    rss: int
    limit: int = 0


@dataclass(frozen=True)
class JobBroken:
    """The job ended with an error."""

    job: Job
    error: FatwheelError


@dataclass(frozen=True)
class WorkerLost:
    """The worker itself ended; the jobs that it had are not done.

    A worker may report this again, for jobs that were given to it when it was gone. failure is
    what it is called if it happens to a job again that runs alone. limit is as for JobKilled.
    """

    worker: Worker
    shard: str
    jobs: tuple[Job, ...]
    reason: str
    failure: type[FatwheelError] = OutOfMemoryError
    limit: int = 0


@dataclass(frozen=True)
class Said:
    """A line of a worker's log, as it is written."""

    shard: str
    line: str


Report = Said | JobMade | JobKilled | JobBroken | WorkerLost
Reports = Queue[Report]


class Worker(Protocol):
    """One shard's worker."""

    def start(self, job: Job) -> None:
        """Begin a job; its outcome goes to the reports."""

    def close(self) -> None:
        """End the worker and whatever it still does."""

    def memory(self) -> int:
        """Bytes resident now, over all its compilers."""


# -- engines ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Build:
    """One wheel to build, as an engine gets it.

    unpack: puts the project's source into a new folder, which upstream's build may write into.
    scope: of the build's entries in the stores. limits: those of the whole build.
    work: a folder of this build's own, which goes with it; logs: one for what its workers say,
    which is kept. audit: as in `worker.context.Context`.
    """

    target: Target
    fronts: tuple[Front, ...]
    unpack: Callable[[Path], Project]
    stores: Stores
    scope: str
    limits: Limits
    work: Path
    logs: Path
    audit: int = OFF

    @property
    def name(self) -> str:
        """What the project's folder is called in the view."""
        return name_of(self.target.recipe)

    @property
    def seeded(self) -> bool:
        """Whether its nvcc has -frandom-seed."""
        return tuple(map(int, self.target.toolchain.cuda.split("."))) >= _SEEDED_SINCE

    @property
    def store(self) -> Store:
        """What the build reads, and what its jobs make."""
        return self.stores.open(self.scope)


def name_of(recipe: Recipe) -> str:
    """What the folder of a recipe's project is called in the view."""
    return f"{recipe.project}-{recipe.version}"


class Capture(Protocol):
    """A captured target. host: what of the machine, or of the image, reaches the wheel. notes,
    links, wheel: see `worker.upstream.Captured`. bounded: whether each of its workers can use no
    more than its own limits, as a container; else they share those of the build."""

    @property
    def units(self) -> tuple[Unit, ...]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def links(self) -> tuple[tuple[str, ...], ...]: ...

    @property
    def wheel(self) -> str: ...

    @property
    def host(self) -> Host: ...

    @property
    def bounded(self) -> bool: ...

    def look_up(self) -> Lookup:
        """What the store has of the units; the rest as jobs."""

    def look_again(self) -> Lookup:
        """The same, after something came into the store."""

    def open(self, shard: str, limits: Limits, reports: Reports) -> Worker:
        """A new worker for a shard. Raises EngineError where there can be none."""

    def assemble(self, limits: Limits) -> tuple[Path, SliceDigests]:
        """Upstream's wheel, and the digests of the slices in it."""


C = TypeVar("C", bound=Capture, covariant=True)


class Workplace(Protocol[C]):
    """What a target is built with, ready for use.

    identity: everything of it that can reach the wheel's bytes. scope: by what it shares entries of
    the store with other builds of the project, as JSON has it (see `pipeline.scope`). materials:
    what is told of it beside the wheel. surroundings: what besides the files that a preprocessed
    text names can decide that text here. capacity: what a build may use unless told otherwise.
    """

    @property
    def identity(self) -> str: ...

    @property
    def scope(self) -> tuple[Any, ...]: ...

    @property
    def surroundings(self) -> str: ...

    @property
    def materials(self) -> tuple[Material, ...]: ...

    @property
    def capacity(self) -> Limits: ...

    def capture(self, build: Build, emit: Emit) -> AbstractContextManager[C]:
        """Capture a target; what that leaves behind goes when the block ends, but for what is in
        the build's stores and logs."""


@dataclass(frozen=True)
class Traffic:
    """What of a captured build travels, in bytes. sources: to each worker. made, left: what each
    job of `all_jobs` makes, and what its front leaves; None where that is not known."""

    sources: int
    made: tuple[int | None, ...]
    left: tuple[int | None, ...]


class Engine(ABC):
    """Where targets are built. What is no abstract method says how an engine differs from one that
    works on this machine, as the user, with nothing around it.

    isolated: whether a project's code runs apart from the user's files and network.
    uses_images: whether it builds in container images, which are made of the toolchain's files.
    """

    name: ClassVar[str]
    isolated: ClassVar[bool] = False
    uses_images: ClassVar[bool] = False

    @abstractmethod
    def obstacle(self, toolchain: Toolchain) -> str:
        """Why it cannot build with a toolchain, or ''; the end of a sentence. Starts nothing."""

    @abstractmethod
    def prepare(self, target: Target, emit: Emit) -> Workplace[Capture]:
        """Make ready what a target is built with, and fetch what that lacks."""

    def answers(self, toolchain: Toolchain) -> bool:
        """Whether it can be reached, and runs what is made of a toolchain."""
        return True

    def yields(self, toolchain: Toolchain) -> bool:
        """Whether one that isolates and answers is taken before it."""
        return False

    def emulates(self, toolchain: Toolchain) -> bool:
        """Whether it builds with a toolchain only where it is asked for, because the toolchain's
        system is not this one."""
        return False

    def system(self) -> str:
        """The system that it builds for, as default toolchains name it."""
        return platform.system().lower()

    def files(self, target: Target) -> list[tuple[Package | Download, Path]]:
        """The toolchain's files that a target may need, and the folder to which each is fetched."""
        return []

    def traffic(self, capture: Capture) -> Traffic | None:
        """What travels of what was captured on this machine; None where nothing does."""
        return None

    def footprint(
        self, targets: Sequence[Target], shards: Sequence[Shard], allotment: Allotment
    ) -> Footprint:
        """The images and containers of a build; asks nobody."""
        return Footprint()


# -- images and containers of a plan ---------------------------------------------------------------

# What a container of compilers may have to do.
DEVICE_CODE, HOST_CODE = "device code", "host code"


@dataclass(frozen=True)
class PlannedImage:
    """A layer of the images that a build needs, and what goes into it.

    pythons:  those that need it.
    files, size: what is fetched and copied in, as far as sizes are known.
    unlocked: names of files, and the base, whose size or digest is not known yet.
    command:  what amounts to the same, to be pasted where the footprint's `render` has run.
    """

    kind: str
    tag: str
    base: str
    pythons: tuple[str, ...]
    files: int
    size: int
    unlocked: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class PlannedContainer:
    """Containers of one purpose, for one wheel.

    wheel:    its place among the targets.
    compiles: DEVICE_CODE, HOST_CODE or '' for those that start no compilers but upstream's own.
    most:     how many there are at most. What the store holds is compiled by none.
    cpus, memory: the limits of each.
    """

    wheel: int
    python: str
    purpose: str
    compiles: str
    most: int
    cpus: int
    memory: int
    image: str
    command: str


@dataclass(frozen=True)
class Footprint:
    """What an engine makes and starts for a build, as far as that is known before.

    image_of: for each target, the image that its containers are made from.
    isolation: how Windows containers are kept apart from their host ('process', 'hyperv', or
    'default', which is the engine's own way); '' without any.
    render:   the commands that make the folders of which the images' commands make images.
    final_tags: whether images will be called as here. Not before all is locked, nor where own bases
    are named (FATWHEEL_BASES), whose ids only the engine knows.
    """

    images: tuple[PlannedImage, ...] = ()
    containers: tuple[PlannedContainer, ...] = ()
    image_of: tuple[str, ...] = ()
    isolation: str = ""
    render: str = ""
    final_tags: bool = True

    @property
    def unlocked(self) -> tuple[str, ...]:
        """What `invoke lock` has to fill in before any of this can start."""
        return tuple(dict.fromkeys(name for image in self.images for name in image.unlocked))


# -- logs ------------------------------------------------------------------------------------------

# What the logs of a build are called, and how long they are kept.


_LONGEST = 100  # characters: a shard is called after all its fronts, and by a number first
_KEPT = 50  # builds whose logs are kept
_OF_LOGS = re.compile(r".*-[0-9a-f]{8}", re.DOTALL)  # the name of such a folder


def shard_purpose(name: str) -> str:
    """What the worker of a shard is called in logs, labels and plans."""
    return f"shard {name}"


def log_name(purpose: str) -> str:
    """A purpose as the name of a file on any system: `shard-1-compute_80.log`."""
    return re.sub(r"[^\w.+-]+", "-", purpose)[:_LONGEST] + ".log"


def with_log(error: UpstreamError, log: Path) -> UpstreamError:
    """The error of a project's own build, which says where all of the build's output is."""
    hint = ". ".join(filter(None, [error.hint, f"All of its output: {log}"]))
    return UpstreamError(error.what, where=error.where, details=error.details, hint=hint)


def new_logs(parent: Path, name: str, kept: int = _KEPT) -> Path:
    """A folder for the logs of a new build; the oldest ones go, so that there are as many as are to
    be `kept`. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    found = (folder for folder in parent.iterdir() if _OF_LOGS.fullmatch(folder.name))
    old = sorted(found, key=_changed)
    for folder in old[: max(0, len(old) + 1 - kept)]:
        shutil.rmtree(folder, ignore_errors=True)
    folder = parent / f"{name}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)  # compilers quote sources
    return folder


def _changed(folder: Path) -> float:
    """When, in seconds since 1970; 0 where another build has deleted it meanwhile."""
    try:
        return folder.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
